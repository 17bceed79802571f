# syntax=docker/dockerfile:1
# Images of airflow-mcp, built by `make image` and by `docker compose build`.
#   runtime   where models are trained and judged: the work plane, without Airflow
#   serving   where models answer requests: the model server
#   airflow   every service of docker-compose.yaml: Airflow, work plane and model server in one environment, because
#             local workloads run with the interpreter of Airflow
#   examples  `airflow` with the example Dags and their data, for deploy/local.sh; an image with Dags of your own looks the same
# Each image installs its libraries before the code, so that a change of the code costs one small layer.

FROM python:3.11-slim-bookworm AS base
# Git and ssh fetch the code of a workload and the description of DVC data, Git LFS its data.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git git-lfs openssh-client \
    && rm -rf /var/lib/apt/lists/*
# Compile Python's own modules too where the base image does not; test data with old syntax is left out.
RUN python -m compileall -q -x '/(lib2to3|tests?)/' "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
RUN ldconfig && groupadd --gid 10001 workload && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /scratch workload \
    && mkdir /scratch && chown 10001:10001 /scratch && python -m venv --without-pip /opt/airflow-mcp
ENV PATH=/opt/airflow-mcp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PIP_PYTHON=/opt/airflow-mcp/bin/python PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 \
    MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true

FROM base AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY airflow_mcp airflow_mcp
RUN pip wheel --no-deps --wheel-dir /wheel .

# Versions are those the tests passed with. The bytecode that pip compiles stays: containers have a read-only file
# system, so each process would compile every import again.
FROM base AS runtime-libraries
COPY pyproject.toml constraints.txt /src/
COPY airflow_mcp/__init__.py /src/airflow_mcp/
RUN touch /src/README.md /src/LICENSE && pip install --constraint /src/constraints.txt '/src[runtime]' && pip uninstall --yes airflow-mcp

FROM runtime-libraries AS runtime
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps /wheel/*.whl
ENV HOME=/scratch TMPDIR=/scratch
USER 10001:10001
WORKDIR /scratch
ENTRYPOINT ["python", "-m", "airflow_mcp.work"]
CMD ["--help"]

FROM runtime-libraries AS serving-libraries
RUN pip install --constraint /src/constraints.txt '/src[serving]' && pip uninstall --yes airflow-mcp

FROM serving-libraries AS serving
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps /wheel/*.whl
ENV HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
ENTRYPOINT ["airflow-mcp", "serve"]

FROM runtime-libraries AS airflow-libraries
RUN pip install --constraint /src/constraints.txt '/src[airflow,serving,postgres,s3,metrics]' && pip uninstall --yes airflow-mcp

FROM airflow-libraries AS airflow
COPY --from=wheel /wheel /wheel
# A named volume takes its owner from the folder of the image. Airflow would write an airflow.cfg where it finds none.
RUN pip install --no-deps /wheel/*.whl \
    && mkdir -p /opt/airflow/dags /opt/airflow/logs /opt/airflow/login /mlflow/artifacts /data && touch /opt/airflow/airflow.cfg \
    && chown -R 10001:10001 /opt/airflow/logs /opt/airflow/login /mlflow /data
ENV AIRFLOW_HOME=/opt/airflow HOME=/tmp
USER 10001:10001
WORKDIR /opt/airflow
CMD ["airflow", "version"]

FROM airflow AS examples
COPY dags /opt/airflow/dags
COPY demo /opt/airflow/demo
COPY stack/example_data.py /opt/airflow/stack/
