"""A version that was revoked in an emergency has its streams cut; one that was rolled back lets them end."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0007_sources'),
    ]

    operations = [
        migrations.AddField(
            model_name='credentialversion',
            name='cut_off',
            field=models.BooleanField(db_default=False, default=False, help_text='revoked in an emergency: streams that it serves are cut'),
        ),
    ]
