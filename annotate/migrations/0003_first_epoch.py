"""The database's first epoch: every cursor names the history it belongs to."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def start_epoch(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("annotate", "DatabaseEpoch").objects.create()


class Migration(migrations.Migration):
    dependencies = [("annotate", "0002_rules_across_tables")]
    operations = [migrations.RunPython(start_epoch, migrations.RunPython.noop)]
