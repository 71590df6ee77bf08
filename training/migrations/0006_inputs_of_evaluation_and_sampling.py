"""Runs may compare a policy with another and sample from several."""

from django.db import migrations, models

ROLES = {
    "reward_model": "Reward model",
    "judge": "Judge",
    "baseline": "Baseline",
    "model_2": "Second model",
    "model_3": "Third model",
    "model_4": "Fourth model",
}


class Migration(migrations.Migration):
    dependencies = [
        ("training", "0005_registry"),
    ]

    operations = [
        migrations.AlterField(
            model_name="runinput",
            name="role",
            field=models.CharField(
                choices=list(ROLES.items()), help_text="The recipe's flag, or --model.", max_length=20
            ),
        ),
        migrations.RemoveConstraint(model_name="runinput", name="input_role_known"),
        migrations.AddConstraint(
            model_name="runinput",
            constraint=models.CheckConstraint(condition=models.Q(("role__in", list(ROLES))), name="input_role_known"),
        ),
    ]
