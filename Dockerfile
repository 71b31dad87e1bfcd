# Two images: `docker build --target serving .` (the API; no Dagster, pandas or scikit-learn) and `--target platform .`
FROM python:3.12-slim AS bare
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 BOOKCLUB_HOME=/data
WORKDIR /app
RUN useradd --create-home --uid 10001 bookclub && mkdir /data && chown bookclub /data

FROM bare AS base
COPY setup.py pyproject.toml constraints.txt README.md sources.yaml ./
COPY bookclub_platform bookclub_platform
COPY serving serving

FROM base AS slim
RUN apt-get update && apt-get install -y --no-install-recommends binutils
COPY tools/slim.py tools/slim.py
RUN python -m venv --without-pip /venv \
  && pip --python /venv/bin/python install --no-compile -c constraints.txt '.[serving]' \
  && python tools/slim.py /venv

FROM bare AS serving
COPY --from=slim /venv /venv
USER bookclub
ENV PATH=/venv/bin:$PATH BOOKCLUB_API_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
CMD ["bookclub", "serve"]

FROM base AS platform
RUN pip install -c constraints.txt -e '.[platform]'
COPY dagster.yaml workspace.yaml ./
USER bookclub
ENV DAGSTER_HOME=/app
EXPOSE 3000
# Tables are brought up by whatever opens them first, or ahead of a roll-out by this image, once, with the command
# `bookclub db upgrade`; `bookclub db current` ends with 1 where that is needed.
# The daemon is the same image with the command `dagster-daemon run -w workspace.yaml`.
CMD ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
