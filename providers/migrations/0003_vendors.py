"""Vendors that serve other vendors' models."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0002_epoch'),
    ]

    operations = [
        migrations.CreateModel(
            name='CatalogueVendor',
            fields=[
                ('name', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('fallbacks', models.JSONField(default=list)),
            ],
        ),
        migrations.RunSQL(
            "CREATE TRIGGER conduit_changed AFTER INSERT OR UPDATE OR DELETE ON providers_cataloguevendor "
            "FOR EACH STATEMENT EXECUTE FUNCTION conduit_changed('snapshot')",
            "DROP TRIGGER conduit_changed ON providers_cataloguevendor",
        ),
    ]
