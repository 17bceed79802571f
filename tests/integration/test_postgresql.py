"""The registry's tests once more, on an MLflow server that keeps its data in PostgreSQL.

PostgreSQL shows each statement what others have committed by then, SQLite each transaction what was there when it
began; and it lets several write at once. So what depends on the order in which things are read and written is tried on
both: races, kills between requests, records of moves, sensors, events.
"""

from __future__ import annotations

import pytest

from tests.integration import test_operators_promotion as promotion
from tests.integration import test_operators_registry as registration
from tests.integration import test_registry_events as events
from tests.integration import test_registry_history as history
from tests.integration import test_sensors_registry as sensors
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration


@pytest.fixture
def registry_server(mlflow_on_postgresql: MlflowServer) -> MlflowServer:
    return mlflow_on_postgresql


def test_the_server_of_this_module_is_on_postgresql(mlflow_on_postgresql: MlflowServer, world: World) -> None:
    assert world.url == mlflow_on_postgresql.url
    assert any(argument.startswith("postgresql+psycopg2://") for argument in mlflow_on_postgresql.command)


test_a_model_that_eight_tasks_register_at_once_becomes_one_version = (
    registration.test_a_model_that_eight_tasks_register_at_once_becomes_one_version
)
test_models_that_are_registered_at_once_do_not_wait_for_each_other = (
    registration.test_models_that_are_registered_at_once_do_not_wait_for_each_other
)
test_a_retry_after_a_kill_after_any_write_ends_with_one_version = (
    registration.test_a_retry_after_a_kill_after_any_write_ends_with_one_version
)

test_of_twenty_promotions_at_once_exactly_one_wins_and_there_is_always_a_champion = (
    promotion.test_of_twenty_promotions_at_once_exactly_one_wins_and_there_is_always_a_champion
)
test_twenty_promotions_at_once_that_all_succeed_make_one_unbroken_history = (
    promotion.test_twenty_promotions_at_once_that_all_succeed_make_one_unbroken_history
)
test_a_rollback_and_a_promotion_at_once_end_as_if_one_came_after_the_other = (
    promotion.test_a_rollback_and_a_promotion_at_once_end_as_if_one_came_after_the_other
)
test_a_promotion_killed_after_any_write_is_completed_by_its_retry = (
    promotion.test_a_promotion_killed_after_any_write_is_completed_by_its_retry
)
test_a_rollback_killed_after_any_write_is_completed_by_its_retry = (
    promotion.test_a_rollback_killed_after_any_write_is_completed_by_its_retry
)
test_after_a_promotion_that_was_killed_anywhere_the_button_goes_back = (
    promotion.test_after_a_promotion_that_was_killed_anywhere_the_button_goes_back
)
test_a_reason_of_any_length_and_kind_moves_and_is_recorded = (
    promotion.test_a_reason_of_any_length_and_kind_moves_and_is_recorded
)
test_a_rollback_works_when_the_newest_version_which_is_champion_was_deleted = (
    promotion.test_a_rollback_works_when_the_newest_version_which_is_champion_was_deleted
)

test_what_was_in_production_when_is_answered_from_the_registry = (
    history.test_what_was_in_production_when_is_answered_from_the_registry
)
test_a_champion_moved_in_the_ui_is_shown_as_such_by_history_and_doctor = (
    history.test_a_champion_moved_in_the_ui_is_shown_as_such_by_history_and_doctor
)

TestVersions = sensors.TestVersions
TestInTheTriggerer = sensors.TestInTheTriggerer

test_every_move_between_two_looks_is_told_with_who_made_it = (
    events.test_every_move_between_two_looks_is_told_with_who_made_it
)
test_every_version_and_every_changed_tag_is_told_of_all_models_that_are_watched = (
    events.test_every_version_and_every_changed_tag_is_told_of_all_models_that_are_watched
)
test_a_triggerer_that_dies_at_any_point_loses_nothing_and_repeats_only_with_the_same_key = (
    events.test_a_triggerer_that_dies_at_any_point_loses_nothing_and_repeats_only_with_the_same_key
)
test_moves_under_way_are_never_taken_for_moves_of_others = (
    events.test_moves_under_way_are_never_taken_for_moves_of_others
)
