"""Fork server of the tests for Airflow: its components and commands start with all of Airflow already imported.

A cold API server spends eight of its twelve seconds of CPU on imports, a scheduler half of its five. This server
imports once, with the configuration of an empty home. A child reads the configuration of its own home into the same
objects, and then runs the program that was asked for. Where a setting that a module has read at its import differs,
the child starts cold in the same process, so nothing runs with a setting that is not its own.

Run as ``python -P -m tests.support.warm_airflow SOCKET PADDING``, as :mod:`tests.support.warm_server` is.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import setproctitle

from tests.support.warm_server import Server, measure_coverage, program_of, run_program, wear

AS_LIBRARY = "_AIRFLOW__AS_LIBRARY"
"""Variable with which Airflow can be imported without a connection to its database and without loggers."""
PRELOADED = (
    *("airflow.cli.cli_parser", "airflow.executors.local_executor"),
    *(
        f"airflow.cli.commands.{name}_command"
        for name in ("api_server", "dag_processor", "db", "scheduler", "triggerer")
    ),
    *("airflow.jobs.scheduler_job_runner", "airflow.jobs.triggerer_job_runner", "airflow.dag_processing.manager"),
    *("airflow.api_fastapi.app", "airflow.api_fastapi.core_api.app", "airflow.api_fastapi.core_api.routes.public"),
    *("airflow.api_fastapi.core_api.routes.ui", "airflow.api_fastapi.execution_api.app"),
    *("airflow.api_fastapi.execution_api.routes", "airflow.sdk.execution_time.task_runner"),
    "airflow.api_fastapi.auth.managers.simple.simple_auth_manager",
    *("airflow_mcp.audit.postgresql", "airflow_mcp.dag_rendering.render"),
)
_REBOUND = {("core", "dags_folder"), ("database", "sql_alchemy_conn")}
"""Settings that modules keep in constants, which get the new value."""
_OF_EACH_HOME = _REBOUND | {
    ("api", "base_url"),  # only its path is kept
    ("core", "auth_manager"),  # the parser of commands looks for one that has no commands of a provider
    ("core", "xcom_backend"),  # resolved anew in _read_configuration
    ("api", "port"),  # the default of an option that every stack gives
    ("dag_processor", "dag_bundle_storage_path"),  # made anew in _read_configuration
}
"""Settings that modules read at their import and that may differ."""


class _Recorder:
    """Notes which settings are read while modules are imported; as a finder of modules it finds none."""

    def __init__(self) -> None:
        self.read: set[tuple[str, str]] = set()

    def find_spec(self, name: str, *_: Any) -> None:
        """Begin as soon as there is a configuration: the settings are the first module that reads it."""
        if name == "airflow.settings":
            for package in ("airflow._shared", "airflow.sdk._shared"):
                self._watch(importlib.import_module(f"{package}.configuration.parser").AirflowConfigParser)

    def _watch(self, parser: Any) -> None:
        get = parser.get

        def noting_get(config: Any, section: str, key: str, *arguments: Any, **options: Any) -> Any:
            self.read.add((section, key.lower()))
            return get(config, section, key, *arguments, **options)

        parser.get = noting_get


def _values(settings: set[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    from airflow.configuration import conf

    return {(section, key): conf.get(section, key, fallback=None) for section, key in settings}


def _read_configuration(before: Mapping[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Read the configuration that this process's environment names into the objects that modules hold.

    :param before: settings and their values so far.
    :return: the same settings with their values now.
    """
    from airflow import configuration
    from airflow.sdk import configuration as task_configuration

    bundles: Any = importlib.import_module("airflow.dag_processing.bundles.base")
    old_home, home = configuration.AIRFLOW_HOME, configuration.get_airflow_home()
    configuration.AIRFLOW_HOME = home
    configuration.AIRFLOW_CONFIG = configuration.get_airflow_config(home)
    configuration.SECRET_KEY = os.urandom(16).hex()
    for module in (configuration, task_configuration):
        kept = vars(module.conf)
        kept.clear()
        kept.update(vars(module.initialize_config()))
    configuration.conf.validate()
    configuration.secrets_backend_list[:] = configuration.initialize_secrets_backends()
    bundles.STALE_BUNDLE_TRACKING_FOLDER = bundles.get_bundle_storage_root_path() / "_tracking"
    now = _values(set(before))
    xcom: Any = importlib.import_module("airflow.sdk.execution_time.xcom")
    _rebind({old_home: home, **{before[name]: now[name] for name in _REBOUND}}, xcom.XCom, xcom.resolve_xcom_backend())
    return now


def _rebind(values: Mapping[str, str], old_backend: type, backend: type) -> None:
    """Give the constants of Airflow's modules that have an old value the new one, and their XComs the new backend."""
    for module in [module for name, module in sys.modules.items() if name.startswith("airflow.")]:
        for name, value in list(vars(module).items()):
            if isinstance(value, str) and value in values:
                setattr(module, name, values[value])
        if vars(module).get("XCom") is old_backend:
            vars(module)["XCom"] = backend


class _Airflow:
    """Starts programs in processes that have Airflow imported.

    :param values: the settings that were read at import, with what they were.
    """

    def __init__(self, values: Mapping[tuple[str, str], Any]) -> None:
        self._values = values

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
        """Run the program of a command line, cold where it needs other settings than those that modules have read."""
        program = program_of(command, env.get("PATH"))
        if program is None:
            raise ValueError(f"not a program of this interpreter: {command}")
        os.chdir(cwd)
        wear(command, env)
        tempfile.tempdir = None  # it was chosen for the server
        now = _read_configuration(self._values)
        if any(now[name] != value for name, value in self._values.items() if name not in _OF_EACH_HOME):
            os.execvpe(command[0], list(command), dict(env))
        sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
        sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
        measure_coverage(env)
        importlib.import_module("airflow.settings").initialize()
        run_program(program)


def _build_execution_api() -> None:
    """Build the routes of the tasks' own API for each of its versions, once for all API servers.

    A cold API server does so at its first request, for 4.5 s of CPU.
    """
    api_server: Any = importlib.import_module("airflow.api_fastapi.app")
    built = api_server.create_task_execution_api_app()
    built._cadwyn_initialize()
    api_server.create_task_execution_api_app = lambda: built


def main(path: str) -> None:
    """Import Airflow, then serve."""
    for name in [name for name in os.environ if name.startswith("AIRFLOW__")]:
        del os.environ[name]
    os.environ[AS_LIBRARY] = "1"
    recorder = _Recorder()
    sys.meta_path.insert(0, recorder)
    for name in PRELOADED:
        importlib.import_module(name)
    sys.meta_path.remove(recorder)
    _build_execution_api()
    setproctitle.getproctitle()  # it finds its place in memory while the command line is still there
    server = Server(path, _Airflow(_values(recorder.read)).start)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1])
