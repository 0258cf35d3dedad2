"""What moves money between periods, leases and the ledger, as functions of the database: one round trip, several
statements, so that each sees what is committed once the period's row is locked.

Everybody locks the worker first, then periods in the order of their ids, before leases. A worker's questions are
numbered and answered in their order only: one that it gave up, because the answer did not come in time, may still
arrive, and would take back or grant what the worker has not been told of. Open of a lease is what was granted less what the
ledger has settled of it, never below zero; a period's `leased_nanos` is the sum of its open leases.
"""

from django.db import migrations

SQL = """
CREATE FUNCTION conduit_exchange(
  p_worker uuid, p_node text, p_pid integer, p_number bigint, p_periods bigint[], p_back bigint[],
  p_held bigint[], p_least bigint[], p_wanted bigint[], p_ahead bigint[], p_recall boolean[]
) RETURNS TABLE (
  o_period bigint, o_granted bigint, o_spent bigint, o_allowed bigint, o_settled bigint, o_leased bigint,
  o_uncertain bigint, o_open bigint
) LANGUAGE plpgsql AS $$
DECLARE
  d record; p record; b record; l record;
  was bigint; room bigint; give bigint; allowed bigint;
BEGIN
  INSERT INTO keys_worker AS w (id, node, pid, asked, started_at, seen_at)
    VALUES (p_worker, p_node, p_pid, p_number, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, asked = excluded.asked
      WHERE w.stopped_at IS NULL AND w.asked < excluded.asked;
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM keys_worker WHERE id = p_worker AND stopped_at IS NULL) THEN
      RAISE EXCEPTION 'a later question of this worker was answered before' USING ERRCODE = 'CDT02';
    END IF;
    RAISE EXCEPTION 'the leases of this worker were closed' USING ERRCODE = 'CDT01';
  END IF;
  FOR d IN
    SELECT * FROM unnest(p_periods, p_back, p_held, p_least, p_wanted, p_ahead, p_recall)
      AS t (period, back, held, least, wanted, ahead, recall) ORDER BY period
  LOOP
    SELECT * INTO p FROM keys_budgetperiod WHERE id = d.period FOR NO KEY UPDATE;
    CONTINUE WHEN NOT FOUND;
    SELECT kind, removed_at, limit_nanos INTO b FROM keys_budget WHERE id = p.budget_id;
    SELECT b.limit_nanos + coalesce(sum(r.extra_nanos), 0) INTO allowed
      FROM keys_budgetraise r WHERE r.budget_id = p.budget_id AND r.until > clock_timestamp();
    INSERT INTO keys_lease (worker_id, period_id, granted_nanos, spent_nanos, held_nanos, granted_at)
      VALUES (p_worker, d.period, 0, 0, 0, clock_timestamp()) ON CONFLICT DO NOTHING;
    SELECT * INTO l FROM keys_lease WHERE worker_id = p_worker AND period_id = d.period FOR NO KEY UPDATE;
    was := greatest(l.granted_nanos - l.spent_nanos, 0);
    l.granted_nanos := l.granted_nanos - d.back;
    -- What the worker overdrew is settled already: granting it costs the period nothing.
    room := allowed - p.settled_nanos - p.uncertain_nanos - (p.leased_nanos - was)
      - (l.granted_nanos - l.spent_nanos);
    give := 0;
    IF b.kind = 'hard' AND b.removed_at IS NULL AND (p.ends_at IS NULL OR p.ends_at > clock_timestamp()) THEN
      IF d.least > 0 AND room >= d.least THEN
        give := least(room, greatest(d.least, d.wanted) + least(d.ahead, room / 100));
      ELSIF d.least = 0 AND room > 0 THEN
        give := least(d.ahead, room / 100);
      ELSIF d.recall AND p.leased_nanos > was THEN
        PERFORM pg_notify('conduit', 'lease:' || d.period || ':' || p_worker);
      END IF;
    END IF;
    l.granted_nanos := l.granted_nanos + give;
    UPDATE keys_lease SET granted_nanos = l.granted_nanos, held_nanos = d.held WHERE id = l.id
      AND (granted_nanos, held_nanos) IS DISTINCT FROM (l.granted_nanos, d.held);
    o_open := greatest(l.granted_nanos - l.spent_nanos, 0);
    IF o_open <> was THEN
      UPDATE keys_budgetperiod SET leased_nanos = leased_nanos + o_open - was WHERE id = d.period;
    END IF;
    o_period := d.period; o_granted := l.granted_nanos; o_spent := l.spent_nanos; o_allowed := allowed;
    o_settled := p.settled_nanos; o_leased := p.leased_nanos + o_open - was; o_uncertain := p.uncertain_nanos;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE FUNCTION conduit_settle(p_workers uuid[], p_periods bigint[], p_costs bigint[], p_uncertain bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  d record; l record; freed bigint;
BEGIN
  FOR d IN
    SELECT * FROM unnest(p_workers, p_periods, p_costs, p_uncertain) AS t (worker, period, cost, uncertain)
     ORDER BY period, worker
  LOOP
    PERFORM 1 FROM keys_budgetperiod WHERE id = d.period FOR NO KEY UPDATE;
    freed := 0;
    UPDATE keys_lease SET spent_nanos = spent_nanos + d.cost + d.uncertain
      WHERE worker_id = d.worker AND period_id = d.period RETURNING granted_nanos, spent_nanos INTO l;
    IF FOUND THEN
      freed := greatest(l.granted_nanos - (l.spent_nanos - d.cost - d.uncertain), 0)
        - greatest(l.granted_nanos - l.spent_nanos, 0);
    END IF;
    UPDATE keys_budgetperiod SET settled_nanos = settled_nanos + d.cost, leased_nanos = leased_nanos - freed,
      uncertain_nanos = uncertain_nanos + d.uncertain WHERE id = d.period;
  END LOOP;
END $$;

CREATE FUNCTION conduit_close(p_worker uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  l record; freed bigint := 0;
BEGIN
  -- First, as everybody does: a question that is being answered ends before, one that comes later is refused.
  UPDATE keys_worker SET stopped_at = coalesce(stopped_at, clock_timestamp()) WHERE id = p_worker;
  FOR l IN SELECT id, period_id FROM keys_lease WHERE worker_id = p_worker ORDER BY period_id LOOP
    PERFORM 1 FROM keys_budgetperiod WHERE id = l.period_id FOR NO KEY UPDATE;
    WITH gone AS (
      DELETE FROM keys_lease WHERE id = l.id RETURNING greatest(granted_nanos - spent_nanos, 0) AS open
    ), less AS (
      UPDATE keys_budgetperiod SET leased_nanos = leased_nanos - gone.open FROM gone
       WHERE keys_budgetperiod.id = l.period_id RETURNING gone.open
    )
    SELECT freed + coalesce(sum(open), 0) INTO freed FROM less;
  END LOOP;
  RETURN freed;
END $$;

CREATE FUNCTION conduit_budget_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_TABLE_NAME = 'keys_budget' THEN
    PERFORM pg_notify('conduit', 'budget:' || NEW.id);
  ELSE
    PERFORM pg_notify('conduit', 'budget:' || coalesce(NEW.budget_id, OLD.budget_id));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER conduit_budget AFTER UPDATE ON keys_budget
  FOR EACH ROW EXECUTE FUNCTION conduit_budget_changed();
CREATE TRIGGER conduit_budget AFTER INSERT OR UPDATE OR DELETE ON keys_budgetraise
  FOR EACH ROW EXECUTE FUNCTION conduit_budget_changed();
"""
REVERSE = """
DROP TRIGGER conduit_budget ON keys_budgetraise;
DROP TRIGGER conduit_budget ON keys_budget;
DROP FUNCTION conduit_budget_changed();
DROP FUNCTION conduit_close(uuid);
DROP FUNCTION conduit_settle(uuid[], bigint[], bigint[], bigint[]);
DROP FUNCTION conduit_exchange(
  uuid, text, integer, bigint, bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], boolean[]);
"""


class Migration(migrations.Migration):
    dependencies = [("keys", "0004_raises")]
    operations = [migrations.RunSQL(SQL, REVERSE)]
