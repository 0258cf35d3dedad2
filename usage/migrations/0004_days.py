"""Daily rollups beside the hourly ones, filled with the sums of the hours that are there."""

import uuid

from django.db import migrations, models

_NIL = uuid.UUID(int=0)
_DIMENSIONS = ["key_id", "team_id", "provider_id", "credential_id", "customer", "route", "model", "endpoint"]
_MEASURES = [
    "requests", "attempts", "errors", "refused", "cancelled", "estimated", "uncertain", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nanos", "latency_us",
    "ttft_us", "ttft_count",
]  # fmt: skip
_TAG_DIMENSIONS = ["tag", "team_id", "key_id"]
_TAG_MEASURES = ["requests", "errors", "refused", "input_tokens", "output_tokens", "cost_nanos"]
_HELP = {
    "requests": "final attempts and refusals",
    "attempts": "upstream attempts",
    "errors": "final attempts that failed upstream",
    "refused": "refused by us",
    "latency_us": "sum over requests",
}


def _fill(day: str, hour: str, dimensions: list[str], measures: list[str]) -> str:
    names, sums = ", ".join(measures), ", ".join(f"sum({name})" for name in measures)
    keys = ", ".join(dimensions)
    return (
        f"INSERT INTO {day} (day, {keys}, {names})"
        f" SELECT date_trunc('day', hour, 'UTC'), {keys}, {sums} FROM {hour} GROUP BY 1, {keys}"
    )


def _ident():
    return (
        "id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")
    )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("usage", "0003_periods")]
    operations = [
        migrations.CreateModel(
            name="UsageDay",
            fields=[
                _ident(),
                *((name, models.UUIDField(default=_NIL)) for name in _DIMENSIONS[:4]),
                ("customer", models.CharField(default="", max_length=254)),
                ("route", models.CharField(default="", max_length=200)),
                ("model", models.CharField(default="", max_length=200)),
                ("endpoint", models.CharField(max_length=16)),
                *((name, models.BigIntegerField(default=0, help_text=_HELP.get(name, ""))) for name in _MEASURES),
                ("day", models.DateTimeField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=["day", *_DIMENSIONS], name="usage_day_dimensions")]
            },
        ),
        migrations.CreateModel(
            name="UsageTagDay",
            fields=[
                _ident(),
                ("tag", models.CharField(max_length=64)),
                ("team_id", models.UUIDField(default=_NIL)),
                ("key_id", models.UUIDField(default=_NIL)),
                *((name, models.BigIntegerField(default=0)) for name in _TAG_MEASURES),
                ("day", models.DateTimeField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["day", *_TAG_DIMENSIONS], name="usage_tag_day_dimensions")
                ]
            },
        ),
        migrations.RunSQL(
            [
                _fill("usage_usageday", "usage_usagehour", _DIMENSIONS, _MEASURES),
                _fill("usage_usagetagday", "usage_usagetaghour", _TAG_DIMENSIONS, _TAG_MEASURES),
            ],
            migrations.RunSQL.noop,
        ),
    ]
