"""Fields of custom resources, as the definitions of their projects have them; no controller of them runs here.

Each schema names the fields that this project writes, with types and limits as the types of Gateway API, Argo Rollouts,
KServe, Kubeflow Trainer, KubeRay and the Prometheus operator have them. They are written by hand and are not the
definitions themselves, which have thousands of lines. A field that is not here is a mistake, or belongs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 253}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
OPEN = {"type": "object"}
"""What another schema checks, or none."""
COUNT = {"type": "integer", "minimum": 0}
LIMIT = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION = {"type": "string", "pattern": r"^(0|(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"}


def _fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """Return the schema of a mapping with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Any, most: int = 1000, fewest: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": most, "minItems": fewest}


_REFERENCE = {"group": {"type": "string"}, "kind": TEXT, "namespace": TEXT, "name": NAME}
_BACKEND = _fields(("name",), **_REFERENCE, port=PORT, weight={"type": "integer", "minimum": 0, "maximum": 1_000_000})
_MATCH = _fields(path=_fields(type={"enum": ["Exact", "PathPrefix", "RegularExpression"]}, value=TEXT))
_HOST = {
    "type": "string",
    "minLength": 1,
    "maxLength": 253,
    "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
}
_HTTP_ROUTE = _fields(
    parentRefs=_list(_fields(("name",), **_REFERENCE, sectionName=NAME, port=PORT), most=32),
    hostnames=_list(_HOST, most=16),
    rules=_list(_fields(name=NAME, matches=_list(_MATCH, most=64), backendRefs=_list(_BACKEND, most=16)), 16, 1),
)
_STEP = {
    **_fields(
        setWeight={"type": "integer", "minimum": 0, "maximum": 100},
        pause=_fields(duration={"anyOf": [DURATION, COUNT]}),
    ),
    "minProperties": 1,
    "maxProperties": 1,
}
_CANARY = _fields(
    canaryService=NAME,
    stableService=NAME,
    maxUnavailable=LIMIT,
    maxSurge=LIMIT,
    analysis=_fields(templates=_list(_fields(("templateName",), templateName=NAME)), startingStep=COUNT),
    steps=_list(_STEP),
    trafficRouting=_fields(plugins=OPEN),
)
_ROLLOUT = _fields(
    ("strategy",),
    replicas=COUNT,
    selector=_fields(matchLabels=TEXTS),
    template=OPEN,
    minReadySeconds=COUNT,
    progressDeadlineSeconds=COUNT,
    revisionHistoryLimit=COUNT,
    strategy=_fields(canary=_CANARY),
)
_METRIC = _fields(
    ("name", "provider"),
    name=TEXT,
    interval=DURATION,
    successCondition=TEXT,
    failureCondition=TEXT,
    failureLimit=LIMIT,
    inconclusiveLimit=LIMIT,
    provider=_fields(prometheus=_fields(("query",), address=TEXT, query=TEXT)),
)
_ANALYSIS_TEMPLATE = _fields(
    ("metrics",), args=_list(_fields(("name",), name=TEXT, value={"type": "string"})), metrics=_list(_METRIC, fewest=1)
)
_COMPONENT = {
    "type": "object",
    "properties": {
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "scaleTarget": {"type": "integer"},
        "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
        "labels": TEXTS,
        "annotations": TEXTS,
        "containers": _list({"type": "object", "required": ["name"]}, fewest=1),
    },
}
"""Its other fields are those of a pod."""
_VARIANT = _fields(
    ("predictor",), trafficPercent={"type": "integer", "minimum": 0, "maximum": 100}, predictor=_COMPONENT
)
_INFERENCE_SERVICE = _fields(predictor=_COMPONENT, canary=_list(_VARIANT))
_ENDPOINT = _fields(port=TEXT, path={"type": "string", "pattern": "^/"}, interval=DURATION, scheme={"enum": ["http"]})
_SERVICE_MONITOR = _fields(
    ("selector", "endpoints"), selector=_fields(matchLabels=TEXTS), endpoints=_list(_ENDPOINT, fewest=1)
)
SPECS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "HTTPRoute": ("gateway.networking.k8s.io/v1", _HTTP_ROUTE),
    "Rollout": ("argoproj.io/v1alpha1", _ROLLOUT),
    "AnalysisTemplate": ("argoproj.io/v1alpha1", _ANALYSIS_TEMPLATE),
    "InferenceService": ("serving.kserve.io/v1beta1", _INFERENCE_SERVICE),
    "ServiceMonitor": ("monitoring.coreos.com/v1", _SERVICE_MONITOR),
}


def mistakes(kind: str, spec: Mapping[str, Any]) -> list[str]:
    """Return what a controller's definition does not allow in a spec."""
    found = Draft202012Validator(SPECS[kind][1]).iter_errors(spec)
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in found]


def require_valid(manifest: Mapping[str, Any]) -> None:
    """Check an object of one of these kinds."""
    assert manifest["apiVersion"] == SPECS[manifest["kind"]][0]
    assert mistakes(manifest["kind"], manifest["spec"]) == []


_PATCHED_POD = _fields(
    serviceAccountName=NAME,
    volumes=_list(OPEN, most=128),
    containers=_list(_fields(("name",), name=NAME, volumeMounts=_list(OPEN, most=128), securityContext=OPEN), most=64),
    imagePullSecrets=_list(OPEN, most=64),
    securityContext=OPEN,
    nodeSelector=TEXTS,
    affinity=OPEN,
    tolerations=_list(OPEN, most=128),
)
_PATCHED_TEMPLATE = _fields(metadata=_fields(labels=TEXTS, annotations=TEXTS), spec=_PATCHED_POD)
_PATCHED_JOB = _fields(("name",), name=NAME, template=_fields(spec=_fields(template=_PATCHED_TEMPLATE)))
TRAIN_JOB = _fields(
    ("runtimeRef",),
    runtimeRef=_fields(("name",), name=NAME, apiGroup=TEXT, kind=TEXT),
    trainer=_fields(
        image={"type": "string", "maxLength": 500},
        command=_list({"type": "string", "maxLength": 65536}, most=128),
        args=_list({"type": "string", "maxLength": 65536}, most=128),
        env=_list(_fields(("name",), name=TEXT, value={"type": "string"}, valueFrom=OPEN), most=128),
        numNodes={"type": "integer"},
        resourcesPerNode=_fields(requests=TEXTS, limits=TEXTS),
    ),
    runtimePatches=_list(
        _fields(
            ("manager",),
            manager=NAME,
            trainingRuntimeSpec=_fields(
                template=_fields(spec=_fields(replicatedJobs=_list(_PATCHED_JOB, most=100))),
            ),
        ),
        most=16,
    ),
    suspend={"type": "boolean"},
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
)
"""The spec of a TrainJob (trainer.kubeflow.org/v1alpha1) since Kubeflow Trainer 2.2."""
_RAY_GROUP = {"rayStartParams": TEXTS, "template": _fields(("spec",), metadata=OPEN, spec=OPEN)}
RAY_JOB = _fields(
    entrypoint=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    submitterPodTemplate=_fields(("spec",), metadata=OPEN, spec=OPEN),
    rayClusterSpec=_fields(
        ("headGroupSpec",),
        headGroupSpec=_fields(("template",), **_RAY_GROUP),
        workerGroupSpecs=_list(
            _fields(
                ("groupName", "template"),
                groupName=NAME,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                **_RAY_GROUP,
            )
        ),
        rayVersion={"type": "string"},
    ),
    suspend={"type": "boolean"},
    activeDeadlineSeconds=COUNT,
)
"""The spec of a RayJob (ray.io/v1)."""
