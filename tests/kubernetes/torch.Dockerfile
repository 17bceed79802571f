# The image of workloads with Debian's PyTorch for CPUs, for tests/kubernetes/test_torch.py. PyPI's wheel brings gigabytes of CUDA.
ARG IMAGE=airflow-mcp/runtime:dev
FROM ${IMAGE}
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends python3-torch && rm -rf /var/lib/apt/lists/*
# The end of the path: our own libraries win over Debian's. PyTorch 1.13 cannot exchange arrays with NumPy 2; the script needs none.
RUN echo /usr/lib/python3/dist-packages >"$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/debian.pth" \
    && python -c 'import torch.distributed as d; assert d.is_gloo_available()'
USER 10001:10001
