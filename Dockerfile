# syntax=docker/dockerfile:1
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY app ./app
COPY migrations ./migrations
RUN python -m venv /opt/reprog && /opt/reprog/bin/pip install --no-cache-dir '.[postgres,sandbox]'

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin reprog \
 && mkdir /data && chown reprog:reprog /data
COPY --from=build /opt/reprog /opt/reprog
COPY docker/entrypoint.sh /usr/local/bin/entrypoint
ENV PATH=/opt/reprog/bin:$PATH PYTHONUNBUFFERED=1 REPROG_DATA_DIR=/data REPROG_HOST=0.0.0.0 REPROG_AUTH=keys
USER reprog
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["reprog", "serve"]
