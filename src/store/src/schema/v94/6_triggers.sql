-- Schema 94 of Synapse 1.163.2 with all its background updates done: functions and triggers.

-- Copies of an event's stream ordering must agree with `events`.
CREATE FUNCTION check_event_stream_ordering() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM events e WHERE e.event_id = NEW.event_id AND e.stream_ordering <> NEW.event_stream_ordering;
    IF FOUND THEN
        RAISE EXCEPTION 'Incorrect event_stream_ordering';
    END IF;
    RETURN NEW;
END $$;

-- Events with partial state must be of the room they are noted for.
CREATE FUNCTION check_partial_state_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM events e WHERE e.event_id = NEW.event_id AND e.room_id <> NEW.room_id;
    IF FOUND THEN
        RAISE EXCEPTION 'Incorrect room_id in partial_state_events';
    END IF;
    RETURN NEW;
END $$;

-- The first holder of a lock sets its mode; the foreign key then refuses holders of the other mode. An existing
-- row of modes is locked but left as it is.
CREATE FUNCTION upsert_read_write_lock_parent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO worker_read_write_locks_mode AS mode (lock_name, lock_key, write_lock, token)
    VALUES (NEW.lock_name, NEW.lock_key, NEW.write_lock, NEW.token)
    ON CONFLICT (lock_name, lock_key) DO UPDATE SET write_lock = mode.write_lock WHERE false;
    RETURN NEW;
END $$;

-- When the holder named in the mode row lets go, another holder is named there, or the row goes too. Holders that
-- are not named leave the row alone, which keeps concurrent releases from waiting for each other in circles.
CREATE FUNCTION delete_read_write_lock_parent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    heir text;
BEGIN
    PERFORM 1 FROM worker_read_write_locks_mode mode
        WHERE (mode.lock_name, mode.lock_key, mode.token) = (OLD.lock_name, OLD.lock_key, OLD.token) FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NEW;
    END IF;
    SELECT held.token INTO heir FROM worker_read_write_locks held
        WHERE (held.lock_name, held.lock_key) = (OLD.lock_name, OLD.lock_key) LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE worker_read_write_locks_mode mode SET token = heir
            WHERE (mode.lock_name, mode.lock_key) = (OLD.lock_name, OLD.lock_key);
    ELSE
        DELETE FROM worker_read_write_locks_mode mode
            WHERE (mode.lock_name, mode.lock_key, mode.token) = (OLD.lock_name, OLD.lock_key, OLD.token);
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_event_stream_ordering BEFORE INSERT OR UPDATE ON current_state_events FOR EACH ROW EXECUTE FUNCTION check_event_stream_ordering();
CREATE TRIGGER check_event_stream_ordering BEFORE INSERT OR UPDATE ON local_current_membership FOR EACH ROW EXECUTE FUNCTION check_event_stream_ordering();
CREATE TRIGGER check_event_stream_ordering BEFORE INSERT OR UPDATE ON room_memberships FOR EACH ROW EXECUTE FUNCTION check_event_stream_ordering();
CREATE TRIGGER check_partial_state_events BEFORE INSERT OR UPDATE ON partial_state_events FOR EACH ROW EXECUTE FUNCTION check_partial_state_events();
CREATE TRIGGER delete_read_write_lock_parent_trigger AFTER DELETE ON worker_read_write_locks FOR EACH ROW EXECUTE FUNCTION delete_read_write_lock_parent();
CREATE TRIGGER upsert_read_write_lock_parent_trigger BEFORE INSERT ON worker_read_write_locks FOR EACH ROW EXECUTE FUNCTION upsert_read_write_lock_parent();
