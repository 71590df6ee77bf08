"""The trainer's parts: data reading, token boundary, packing, losses, evaluation, checkpoints. No Django, no Celery."""
