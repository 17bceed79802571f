# syntax=docker/dockerfile:1
# Images of airflow-mcp. Build with `make image`.
#   runtime   where models are trained and judged: the work plane, without Airflow

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN ldconfig && python -m venv /opt/airflow-mcp
ENV PATH=/opt/airflow-mcp/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Dependencies first: they change less often than the code. The versions are those the tests passed with.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY airflow_mcp/__init__.py airflow_mcp/__init__.py
RUN pip install --constraint constraints.txt '.[runtime]' && pip uninstall --yes airflow-mcp
COPY airflow_mcp airflow_mcp
# The bytecode that pip compiles stays: pods have a read-only file system, so each would compile every import again.
RUN pip install --no-deps . && pip uninstall --yes pip

FROM python:3.11-slim-bookworm AS runtime
# Git and ssh fetch the code of a workload and the description of DVC data, Git LFS its data.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git git-lfs openssh-client \
    && rm -rf /var/lib/apt/lists/*
# Compile Python's own modules too where the base image does not; test data with old syntax is left out.
RUN python -m compileall -q -x '/(lib2to3|tests?)/' "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
RUN ldconfig && groupadd --gid 10001 workload && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /scratch workload \
    && mkdir /scratch && chown 10001:10001 /scratch
COPY --from=build /opt/airflow-mcp /opt/airflow-mcp
ENV PATH=/opt/airflow-mcp/bin:$PATH HOME=/scratch TMPDIR=/scratch PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
USER 10001:10001
WORKDIR /scratch
ENTRYPOINT ["python", "-m", "airflow_mcp.work"]
CMD ["--help"]
