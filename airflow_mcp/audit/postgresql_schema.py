"""The schema of the log in PostgreSQL: tables that only their owner may read, and functions for everybody else.

The functions run as the owner, a role that nobody logs in as. A login may execute a function or may not; it never has
a right on a table, so no code of a client has to be trusted.
"""

from __future__ import annotations

SCHEMA = "airflow_mcp_audit"
OWNER = "airflow_mcp_audit_owner"
CONFLICT = "AU001"
"""SQLSTATE of an event whose ID the log has with other content."""
WRITER_FUNCTIONS = ("append(text, text)", "facts(text, text, integer)", "erase(text, text)")
READER_FUNCTIONS = ("read(text, text, bigint, integer)",)

MAKE_OWNER = f"""
DO $$ BEGIN
  CREATE ROLE {OWNER} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION {OWNER};
"""

MAKE_TABLES = f"""
CREATE TABLE IF NOT EXISTS {SCHEMA}.event (
  seq bigint PRIMARY KEY, event_id text NOT NULL UNIQUE, recorded_at timestamptz NOT NULL,
  action text NOT NULL, subject text NOT NULL, model text, hash bytea NOT NULL, event_hash bytea NOT NULL,
  record text NOT NULL
);
CREATE INDEX IF NOT EXISTS event_of_subject ON {SCHEMA}.event (subject, action, seq);
CREATE INDEX IF NOT EXISTS event_of_model ON {SCHEMA}.event (model, seq);
CREATE TABLE IF NOT EXISTS {SCHEMA}.head (
  is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  seq bigint NOT NULL, hash bytea NOT NULL, recorded_at timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO {SCHEMA}.head VALUES (true, 0, decode(repeat('00', 32), 'hex'), '-infinity') ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {SCHEMA}.may_append (
  login text NOT NULL, action_prefix text NOT NULL, PRIMARY KEY (login, action_prefix)
);
"""

MAKE_TRIGGERS = rf"""
CREATE OR REPLACE FUNCTION {SCHEMA}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'the audit log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = '42501';
END $$;
CREATE OR REPLACE FUNCTION {SCHEMA}.erased(p_action text, p_record text) RETURNS text IMMUTABLE LANGUAGE sql AS $$
  SELECT '{{"erased":{{"action":' || to_json(p_action)::text || ',"environment":' || to_json(e->>'environment')::text
    || ',"id":' || to_json(e->>'id')::text || ',"move":' || coalesce(to_json(e->'new'->>'move')::text, 'null')
    || ',"refs":' || replace((e->'refs')::text, ' ', '') || ',"subject":' || to_json(e->>'subject')::text
    || '}},"hash":"' || encode(sha256('\x00'::bytea || convert_to(p_record, 'UTF8')), 'hex') || '","prev":"'
    || (j->>'prev') || '","recorded_at":"' || (j->>'recorded_at') || '","seq":' || (j->>'seq') || '}}'
  FROM (SELECT p_record::jsonb AS j, p_record::jsonb->'event' AS e) parts
$$;
CREATE OR REPLACE FUNCTION {SCHEMA}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  -- What is erased keeps every column but the text, and an event before it says so.
  IF (NEW.seq, NEW.event_id, NEW.recorded_at, NEW.action, NEW.subject, NEW.hash, NEW.event_hash)
    = (OLD.seq, OLD.event_id, OLD.recorded_at, OLD.action, OLD.subject, OLD.hash, OLD.event_hash)
    AND NEW.model IS NOT DISTINCT FROM OLD.model AND NEW.record = {SCHEMA}.erased(OLD.action, OLD.record)
    AND EXISTS (SELECT 1 FROM {SCHEMA}.event e WHERE e.subject = 'record:' || OLD.seq AND e.action = 'audit.erased')
  THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the audit log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = '42501';
END $$;
DROP TRIGGER IF EXISTS append_only ON {SCHEMA}.event;
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON {SCHEMA}.event
  FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse();
DROP TRIGGER IF EXISTS keep_hash ON {SCHEMA}.event;
CREATE TRIGGER keep_hash BEFORE UPDATE ON {SCHEMA}.event
  FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.refuse_change();
DROP TRIGGER IF EXISTS keep ON {SCHEMA}.head;
CREATE TRIGGER keep BEFORE DELETE OR TRUNCATE ON {SCHEMA}.head
  FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse();
"""

_SAFE = f"LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {SCHEMA}, pg_temp"

MAKE_FUNCTIONS = rf"""
CREATE OR REPLACE FUNCTION {SCHEMA}.store(p_id text, p_event text, OUT o_seq bigint, OUT o_is_new boolean)
{_SAFE} AS $$
DECLARE h head; e event; j jsonb; t timestamptz; r text; x bytea; eh bytea := sha256(convert_to(p_event, 'UTF8'));
BEGIN
  IF octet_length(p_event) > 65536 OR p_event ~ '[\x01-\x1f]' THEN
    RAISE EXCEPTION 'an event is one line of at most 65536 bytes' USING ERRCODE = '22023';
  END IF;
  j := p_event::jsonb;
  IF jsonb_typeof(j) <> 'object' OR j->>'id' IS DISTINCT FROM p_id OR j->>'action' IS NULL OR j->>'subject' IS NULL THEN
    RAISE EXCEPTION 'an event is an object with its id, an action and a subject' USING ERRCODE = '22023';
  END IF;
  SELECT * INTO STRICT h FROM head FOR UPDATE;  -- one writer after the other
  SELECT * INTO e FROM event WHERE event_id = p_id;
  IF FOUND THEN
    IF e.event_hash <> eh THEN
      RAISE EXCEPTION 'the log has another event of id %, seq %', p_id, e.seq USING ERRCODE = '{CONFLICT}';
    END IF;
    o_seq := e.seq; o_is_new := false;
    RETURN;
  END IF;
  t := greatest(clock_timestamp(), h.recorded_at);  -- a clock that was set back does not reorder the log
  r := '{{"by":' || to_json(session_user::text)::text || ',"event":' || p_event || ',"prev":"' || encode(h.hash, 'hex')
    || '","recorded_at":"' || to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '","seq":'
    || (h.seq + 1)::text || '}}';
  x := sha256('\x00'::bytea || convert_to(r, 'UTF8'));
  INSERT INTO event VALUES (h.seq + 1, p_id, t, j->>'action', j->>'subject', CASE
    WHEN starts_with(j->>'subject', 'model:') THEN substr(j->>'subject', 7)
    WHEN starts_with(j->>'subject', 'version:') THEN regexp_replace(substr(j->>'subject', 9), '/[^/]*$', '')
    WHEN j->>'subject' <> 'log' THEN j->'new'->>'model' END, x, eh, r);
  UPDATE head SET seq = h.seq + 1, hash = x, recorded_at = t;
  o_seq := h.seq + 1; o_is_new := true;
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.require_right(p_action text) RETURNS void {_SAFE} AS $$ BEGIN
  IF NOT EXISTS (
    SELECT 1 FROM may_append m WHERE m.login = session_user AND starts_with(p_action, m.action_prefix)
  ) THEN
    RAISE EXCEPTION 'login % may not append %', session_user, p_action USING ERRCODE = '42501';
  END IF;
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.append(p_id text, p_event text, OUT o_seq bigint, OUT o_is_new boolean)
{_SAFE} AS $$
DECLARE a text := p_event::jsonb->>'action';
BEGIN
  PERFORM require_right(a);
  IF a IN ('audit.read', 'audit.exported', 'audit.erased', 'log.created') THEN
    RAISE EXCEPTION '% is appended by the act that it records, or at the beginning', a USING ERRCODE = '42501';
  END IF;
  SELECT s.o_seq, s.o_is_new INTO o_seq, o_is_new FROM store(p_id, p_event) s;
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.erase(p_id text, p_event text, OUT o_seq bigint, OUT o_is_new boolean)
{_SAFE} AS $$
DECLARE j jsonb := p_event::jsonb; n bigint := (j->'new'->>'seq')::bigint; e event;
BEGIN
  PERFORM require_right('audit.erased');
  SELECT * INTO e FROM event WHERE seq = n;
  IF NOT FOUND OR j->>'action' <> 'audit.erased' OR j->>'subject' <> 'record:' || n
    OR e.action = 'log.created' OR starts_with(e.action, 'audit.') OR starts_with(e.action, 'policy.') THEN
    RAISE EXCEPTION 'there is no record % that can be erased', n USING ERRCODE = '22023';
  END IF;
  SELECT s.o_seq, s.o_is_new INTO o_seq, o_is_new FROM store(p_id, p_event) s;
  UPDATE event SET record = erased(action, record) WHERE seq = n AND NOT starts_with(record, '{{"erased":');
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.facts(p_subject text, p_action text, p_last integer)
RETURNS TABLE (o_record text) {_SAFE} AS $$
BEGIN
  RETURN QUERY SELECT l.record FROM (
    SELECT e.seq, e.record FROM event e WHERE e.subject = p_subject AND starts_with(e.action, p_action)
    ORDER BY e.seq DESC LIMIT nullif(p_last, 0)
  ) l ORDER BY l.seq;
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.read(p_id text, p_event text, p_after bigint, p_limit integer)
RETURNS TABLE (o_seq bigint, o_record text) {_SAFE} AS $$
DECLARE j jsonb := p_event::jsonb; a text := j->>'action'; n jsonb := j->'new'; own bigint;
BEGIN
  PERFORM require_right(a);
  IF a NOT IN ('audit.read', 'audit.exported') THEN
    RAISE EXCEPTION '% is not a read', a USING ERRCODE = '42501';
  END IF;
  -- Recorded first. Whoever repeats the same event sees nothing later than it, and nothing that its filter leaves out.
  SELECT s.o_seq INTO own FROM store(p_id, p_event) s;
  IF a = 'audit.exported' THEN
    RETURN QUERY SELECT e.seq, e.record FROM event e
      WHERE e.seq > greatest(p_after, (n->>'after')::bigint) AND e.seq <= own ORDER BY e.seq LIMIT p_limit;
    RETURN;
  END IF;
  IF (n->>'limit')::integer NOT BETWEEN 1 AND 1000 THEN
    RAISE EXCEPTION 'audit.read returns 1 to 1000 records' USING ERRCODE = '22023';
  END IF;
  RETURN QUERY SELECT l.seq, l.record FROM (
    SELECT e.seq, e.record FROM event e WHERE e.seq < own
      AND (n->>'subject' = '' OR e.subject = n->>'subject') AND (n->>'model' = '' OR e.model = n->>'model')
      AND starts_with(e.action, n->>'action')
    ORDER BY e.seq DESC LIMIT (n->>'limit')::integer
  ) l ORDER BY l.seq;
END $$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {SCHEMA} FROM PUBLIC;
"""
