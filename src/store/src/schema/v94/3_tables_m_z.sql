-- Schema 94 of Synapse 1.163.2 with all its background updates done: tables m to z.

CREATE TABLE monthly_active_users (
    user_id text NOT NULL, "timestamp" bigint NOT NULL
);
CREATE TABLE msc4242_state_dag_edges (
    room_id text NOT NULL, event_id text NOT NULL, prev_state_event_id text
);
CREATE TABLE msc4242_state_dag_forward_extremities (
    room_id text NOT NULL, event_id text NOT NULL,
    CONSTRAINT msc4242_state_dag_forward_extremities_event_id_key UNIQUE (event_id)
);
CREATE TABLE open_id_tokens (
    token text NOT NULL, ts_valid_until_ms bigint NOT NULL, user_id text NOT NULL,
    CONSTRAINT open_id_tokens_pkey PRIMARY KEY (token)
);
CREATE TABLE partial_state_events (
    room_id text NOT NULL, event_id text NOT NULL,
    CONSTRAINT partial_state_events_event_id_key UNIQUE (event_id)
);
CREATE TABLE partial_state_rooms (
    room_id text NOT NULL, device_lists_stream_id bigint DEFAULT 0 NOT NULL, join_event_id text, joined_via text,
    CONSTRAINT partial_state_rooms_pkey PRIMARY KEY (room_id)
);
CREATE TABLE partial_state_rooms_servers (
    room_id text NOT NULL, server_name text NOT NULL,
    CONSTRAINT partial_state_rooms_servers_room_id_server_name_key UNIQUE (room_id, server_name)
);
CREATE TABLE per_user_experimental_features (
    user_id text NOT NULL, feature text NOT NULL, enabled boolean DEFAULT false,
    CONSTRAINT per_user_experimental_features_pkey PRIMARY KEY (user_id, feature)
);
CREATE TABLE presence_stream (
    stream_id bigint, user_id text, state text, last_active_ts bigint, last_federation_update_ts bigint, last_user_sync_ts bigint, status_msg text,
    currently_active boolean, instance_name text
);
CREATE TABLE profile_updates (
    stream_id bigint NOT NULL, instance_name text NOT NULL, user_id text NOT NULL, action text NOT NULL, affected_fields jsonb, inserted_ts bigint NOT
    NULL,
    CONSTRAINT profile_updates_pkey PRIMARY KEY (stream_id)
);
CREATE TABLE profile_updates_per_user (
    stream_id bigint NOT NULL, user_id text NOT NULL, inserted_ts bigint NOT NULL,
    CONSTRAINT profile_updates_per_user_pkey PRIMARY KEY (user_id, stream_id)
);
CREATE TABLE profiles (
    user_id text NOT NULL, displayname text, avatar_url text, full_user_id text, fields jsonb, CONSTRAINT full_user_id_not_null CHECK ((full_user_id
    IS NOT NULL)),
    CONSTRAINT profiles_user_id_key UNIQUE (user_id)
);
CREATE TABLE push_rules (
    id bigint NOT NULL, user_name text NOT NULL, rule_id text NOT NULL, priority_class smallint NOT NULL, priority integer DEFAULT 0 NOT NULL,
    conditions text NOT NULL, actions text NOT NULL,
    CONSTRAINT push_rules_pkey PRIMARY KEY (id),
    CONSTRAINT push_rules_user_name_rule_id_key UNIQUE (user_name, rule_id)
);
CREATE TABLE push_rules_enable (
    id bigint NOT NULL, user_name text NOT NULL, rule_id text NOT NULL, enabled smallint,
    CONSTRAINT push_rules_enable_pkey PRIMARY KEY (id),
    CONSTRAINT push_rules_enable_user_name_rule_id_key UNIQUE (user_name, rule_id)
);
CREATE TABLE push_rules_stream (
    stream_id bigint NOT NULL, event_stream_ordering bigint NOT NULL, user_id text NOT NULL, rule_id text NOT NULL, op text NOT NULL, priority_class
    smallint, priority integer, conditions text, actions text, instance_name text
);
CREATE TABLE pusher_throttle (
    pusher bigint NOT NULL, room_id text NOT NULL, last_sent_ts bigint, throttle_ms bigint,
    CONSTRAINT pusher_throttle_pkey PRIMARY KEY (pusher, room_id)
);
CREATE TABLE pushers (
    id bigint NOT NULL, user_name text NOT NULL, access_token bigint, profile_tag text NOT NULL, kind text NOT NULL, app_id text NOT NULL,
    app_display_name text NOT NULL, device_display_name text NOT NULL, pushkey text NOT NULL, ts bigint NOT NULL, lang text, data text,
    last_stream_ordering bigint, last_success bigint, failing_since bigint, enabled boolean, device_id text, instance_name text,
    CONSTRAINT pushers2_app_id_pushkey_user_name_key UNIQUE (app_id, pushkey, user_name),
    CONSTRAINT pushers2_pkey PRIMARY KEY (id)
);
CREATE TABLE quarantined_media_changes (
    stream_id integer NOT NULL, instance_name text NOT NULL, origin text, media_id text NOT NULL, quarantined boolean NOT NULL,
    CONSTRAINT quarantined_media_changes_pkey PRIMARY KEY (stream_id)
);
CREATE TABLE ratelimit_override (
    user_id text NOT NULL, messages_per_second bigint, burst_count bigint
);
CREATE TABLE receipts_graph (
    room_id text NOT NULL, receipt_type text NOT NULL, user_id text NOT NULL, event_ids text NOT NULL, data text NOT NULL, thread_id text,
    CONSTRAINT receipts_graph_uniqueness_thread UNIQUE (room_id, receipt_type, user_id, thread_id)
);
CREATE TABLE receipts_linearized (
    stream_id bigint NOT NULL, room_id text NOT NULL, receipt_type text NOT NULL, user_id text NOT NULL, event_id text NOT NULL, data text NOT NULL,
    instance_name text, event_stream_ordering bigint, thread_id text,
    CONSTRAINT receipts_linearized_uniqueness_thread UNIQUE (room_id, receipt_type, user_id, thread_id)
);
CREATE TABLE received_transactions (
    transaction_id text, origin text, ts bigint, response_code integer, response_json bytea, has_been_referenced smallint DEFAULT 0,
    CONSTRAINT received_transactions_transaction_id_origin_key UNIQUE (transaction_id, origin)
);
CREATE TABLE redactions (
    event_id text NOT NULL, redacts text NOT NULL, have_censored boolean DEFAULT false NOT NULL, received_ts bigint, recheck boolean DEFAULT true NOT
    NULL,
    CONSTRAINT redactions_event_id_key UNIQUE (event_id)
);
CREATE TABLE refresh_tokens (
    id bigint NOT NULL, user_id text NOT NULL, device_id text NOT NULL, token text NOT NULL, next_token_id bigint, expiry_ts bigint,
    ultimate_session_expiry_ts bigint,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_tokens_token_key UNIQUE (token)
);
CREATE TABLE registration_tokens (
    token text NOT NULL, uses_allowed integer, pending integer NOT NULL, completed integer NOT NULL, expiry_time bigint,
    CONSTRAINT registration_tokens_token_key UNIQUE (token)
);
CREATE TABLE rejections (
    event_id text NOT NULL, reason text NOT NULL, last_check text NOT NULL,
    CONSTRAINT rejections_event_id_key UNIQUE (event_id)
);
CREATE TABLE remote_media_cache (
    media_origin text, media_id text, media_type text, created_ts bigint, upload_name text, media_length integer, filesystem_id text, last_access_ts
    bigint, quarantined_by text, authenticated boolean DEFAULT false NOT NULL, sha256 text,
    CONSTRAINT remote_media_cache_media_origin_media_id_key UNIQUE (media_origin, media_id)
);
CREATE TABLE remote_media_cache_thumbnails (
    media_origin text, media_id text, thumbnail_width integer, thumbnail_height integer, thumbnail_method text, thumbnail_type text, thumbnail_length
    integer, filesystem_id text
);
CREATE TABLE room_account_data (
    user_id text NOT NULL, room_id text NOT NULL, account_data_type text NOT NULL, stream_id bigint NOT NULL, content text NOT NULL, instance_name
    text,
    CONSTRAINT room_account_data_uniqueness UNIQUE (user_id, room_id, account_data_type)
);
CREATE TABLE room_alias_servers (
    room_alias text NOT NULL, server text NOT NULL
);
CREATE TABLE room_aliases (
    room_alias text NOT NULL, room_id text NOT NULL, creator text,
    CONSTRAINT room_aliases_room_alias_key UNIQUE (room_alias)
);
CREATE TABLE room_ban_redactions (
    room_id text NOT NULL, user_id text NOT NULL, redacting_event_id text NOT NULL, redact_end_ordering bigint,
    CONSTRAINT room_ban_redaction_uniqueness UNIQUE (room_id, user_id)
);
CREATE TABLE room_depth (
    room_id text NOT NULL, min_depth bigint,
    CONSTRAINT room_depth_room_id_key UNIQUE (room_id)
);
CREATE TABLE room_forgetter_stream_pos (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint NOT NULL, CONSTRAINT room_forgetter_stream_pos_lock_check CHECK ((lock =
    'X'::bpchar)),
    CONSTRAINT room_forgetter_stream_pos_lock_key UNIQUE (lock)
);
CREATE TABLE room_memberships (
    event_id text NOT NULL, user_id text NOT NULL, sender text NOT NULL, room_id text NOT NULL, membership text NOT NULL, forgotten integer DEFAULT 0,
    display_name text, avatar_url text, event_stream_ordering bigint, participant boolean DEFAULT false,
    CONSTRAINT room_memberships_event_id_key UNIQUE (event_id)
);
CREATE TABLE room_reports (
    id bigint NOT NULL, received_ts bigint NOT NULL, room_id text NOT NULL, user_id text NOT NULL, reason text NOT NULL,
    CONSTRAINT room_reports_pkey PRIMARY KEY (id)
);
CREATE TABLE room_retention (
    room_id text NOT NULL, event_id text NOT NULL, min_lifetime bigint, max_lifetime bigint,
    CONSTRAINT room_retention_pkey PRIMARY KEY (room_id, event_id)
);
CREATE TABLE room_stats_current (
    room_id text NOT NULL, current_state_events integer NOT NULL, joined_members integer NOT NULL, invited_members integer NOT NULL, left_members
    integer NOT NULL, banned_members integer NOT NULL, local_users_in_room integer NOT NULL, completed_delta_stream_id bigint NOT NULL,
    knocked_members integer,
    CONSTRAINT room_stats_current_pkey PRIMARY KEY (room_id)
);
CREATE TABLE room_stats_earliest_token (
    room_id text NOT NULL, token bigint NOT NULL
);
CREATE TABLE room_stats_state (
    room_id text NOT NULL, name text, canonical_alias text, join_rules text, history_visibility text, encryption text, avatar text, guest_access text,
    is_federatable boolean, topic text, room_type text
);
CREATE TABLE room_tags (
    user_id text NOT NULL, room_id text NOT NULL, tag text NOT NULL, content text NOT NULL,
    CONSTRAINT room_tag_uniqueness UNIQUE (user_id, room_id, tag)
);
CREATE TABLE room_tags_revisions (
    user_id text NOT NULL, room_id text NOT NULL, stream_id bigint NOT NULL, instance_name text,
    CONSTRAINT room_tag_revisions_uniqueness UNIQUE (user_id, room_id)
);
CREATE TABLE rooms (
    room_id text NOT NULL, is_public boolean, creator text, room_version text, has_auth_chain_index boolean,
    CONSTRAINT rooms_pkey PRIMARY KEY (room_id)
);
CREATE TABLE scheduled_tasks (
    id text NOT NULL, action text NOT NULL, status text NOT NULL, "timestamp" bigint NOT NULL, resource_id text, params text, result text, error text,
    CONSTRAINT scheduled_tasks_pkey PRIMARY KEY (id)
);
CREATE TABLE schema_compat_version (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, compat_version integer NOT NULL, CONSTRAINT schema_compat_version_lock_check CHECK ((lock =
    'X'::bpchar)),
    CONSTRAINT schema_compat_version_lock_key UNIQUE (lock)
);
CREATE TABLE schema_version (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, version integer NOT NULL, upgraded boolean NOT NULL, CONSTRAINT schema_version_lock_check CHECK
    ((lock = 'X'::bpchar)),
    CONSTRAINT schema_version_lock_key UNIQUE (lock)
);
CREATE TABLE server_keys_json (
    server_name text NOT NULL, key_id text NOT NULL, from_server text NOT NULL, ts_added_ms bigint NOT NULL, ts_valid_until_ms bigint NOT NULL,
    key_json bytea NOT NULL,
    CONSTRAINT server_keys_json_uniqueness UNIQUE (server_name, key_id, from_server)
);
CREATE TABLE server_signature_keys (
    server_name text, key_id text, from_server text, ts_added_ms bigint, verify_key bytea, ts_valid_until_ms bigint,
    CONSTRAINT server_signature_keys_server_name_key_id_key UNIQUE (server_name, key_id)
);
CREATE TABLE sessions (
    session_type text NOT NULL, session_id text NOT NULL, value text NOT NULL, expiry_time_ms bigint NOT NULL,
    CONSTRAINT sessions_session_type_session_id_key UNIQUE (session_type, session_id)
);
CREATE TABLE sliding_sync_connection_lazy_members (
    connection_key bigint NOT NULL, connection_position bigint, room_id text NOT NULL, user_id text NOT NULL, last_seen_ts bigint NOT NULL
);
CREATE TABLE sliding_sync_connection_positions (
    connection_position bigint GENERATED ALWAYS AS IDENTITY, connection_key bigint NOT NULL, created_ts bigint NOT NULL,
    CONSTRAINT sliding_sync_connection_positions_pkey PRIMARY KEY (connection_position)
);
CREATE TABLE sliding_sync_connection_required_state (
    required_state_id bigint GENERATED ALWAYS AS IDENTITY, connection_key bigint NOT NULL, required_state text NOT NULL,
    CONSTRAINT sliding_sync_connection_required_state_pkey PRIMARY KEY (required_state_id)
);
CREATE TABLE sliding_sync_connection_room_configs (
    connection_position bigint NOT NULL, room_id text NOT NULL, timeline_limit bigint NOT NULL, required_state_id bigint NOT NULL
);
CREATE TABLE sliding_sync_connection_streams (
    connection_position bigint NOT NULL, stream text NOT NULL, room_id text NOT NULL, room_status text NOT NULL, last_token text
);
CREATE TABLE sliding_sync_connections (
    connection_key bigint GENERATED ALWAYS AS IDENTITY, user_id text NOT NULL, effective_device_id text NOT NULL, conn_id text NOT NULL, created_ts
    bigint NOT NULL, last_used_ts bigint,
    CONSTRAINT sliding_sync_connections_pkey PRIMARY KEY (connection_key)
);
CREATE TABLE sliding_sync_joined_rooms (
    room_id text NOT NULL, event_stream_ordering bigint NOT NULL, bump_stamp bigint, room_type text, room_name text, is_encrypted boolean DEFAULT
    false NOT NULL, tombstone_successor_room_id text,
    CONSTRAINT sliding_sync_joined_rooms_pkey PRIMARY KEY (room_id)
);
CREATE TABLE sliding_sync_joined_rooms_to_recalculate (
    room_id text NOT NULL,
    CONSTRAINT sliding_sync_joined_rooms_to_recalculate_pkey PRIMARY KEY (room_id)
);
CREATE TABLE sliding_sync_membership_snapshots (
    room_id text NOT NULL, user_id text NOT NULL, sender text NOT NULL, membership_event_id text NOT NULL, membership text NOT NULL, forgotten integer
    DEFAULT 0 NOT NULL, event_stream_ordering bigint NOT NULL, event_instance_name text NOT NULL, has_known_state boolean DEFAULT false NOT NULL,
    room_type text, room_name text, is_encrypted boolean DEFAULT false NOT NULL, tombstone_successor_room_id text,
    CONSTRAINT sliding_sync_membership_snapshots_pkey PRIMARY KEY (room_id, user_id)
);
CREATE TABLE state_events (
    event_id text NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, prev_state text,
    CONSTRAINT state_events_event_id_key UNIQUE (event_id)
);
CREATE TABLE state_group_edges (
    state_group bigint NOT NULL, prev_state_group bigint NOT NULL
);
CREATE TABLE state_groups (
    id bigint NOT NULL, room_id text NOT NULL, event_id text NOT NULL,
    CONSTRAINT state_groups_pkey PRIMARY KEY (id)
);
CREATE TABLE state_groups_pending_deletion (
    sequence_number bigint GENERATED ALWAYS AS IDENTITY, state_group bigint NOT NULL, insertion_ts bigint NOT NULL,
    CONSTRAINT state_groups_pending_deletion_pkey PRIMARY KEY (sequence_number)
);
CREATE TABLE state_groups_persisting (
    state_group bigint NOT NULL, instance_name text NOT NULL, inserted_ts bigint DEFAULT (EXTRACT(epoch FROM now()) * (1000)::numeric) NOT NULL,
    CONSTRAINT state_groups_persisting_pkey PRIMARY KEY (state_group, instance_name)
);
CREATE TABLE state_groups_state (
    state_group bigint NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, event_id text NOT NULL
);
CREATE TABLE stats_incremental_position (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint NOT NULL, CONSTRAINT stats_incremental_position_lock_check CHECK ((lock =
    'X'::bpchar)),
    CONSTRAINT stats_incremental_position_lock_key UNIQUE (lock)
);
CREATE TABLE sticky_events (
    stream_id integer NOT NULL, instance_name text NOT NULL, event_id text NOT NULL, room_id text NOT NULL, event_stream_ordering integer NOT NULL,
    sender text NOT NULL, expires_at bigint NOT NULL,
    CONSTRAINT sticky_events_event_stream_ordering_key UNIQUE (event_stream_ordering),
    CONSTRAINT sticky_events_pkey PRIMARY KEY (stream_id)
);
CREATE TABLE stream_ordering_to_exterm (
    stream_ordering bigint NOT NULL, room_id text NOT NULL, event_id text NOT NULL
);
CREATE TABLE stream_positions (
    stream_name text NOT NULL, instance_name text NOT NULL, stream_id bigint NOT NULL
);
CREATE TABLE thread_subscriptions (
    stream_id integer NOT NULL, instance_name text NOT NULL, room_id text NOT NULL, event_id text NOT NULL, user_id text NOT NULL, subscribed boolean
    NOT NULL, automatic boolean NOT NULL, unsubscribed_at_stream_ordering bigint, unsubscribed_at_topological_ordering bigint,
    CONSTRAINT thread_subscriptions_pkey PRIMARY KEY (stream_id),
    CONSTRAINT thread_subscriptions_room_id_event_id_user_id_key UNIQUE (room_id, event_id, user_id)
);
CREATE TABLE threads (
    room_id text NOT NULL, thread_id text NOT NULL, latest_event_id text NOT NULL, topological_ordering bigint NOT NULL, stream_ordering bigint NOT
    NULL,
    CONSTRAINT threads_uniqueness UNIQUE (room_id, thread_id)
);
CREATE TABLE threepid_guest_access_tokens (
    medium text, address text, guest_access_token text, first_inviter text
);
CREATE TABLE threepid_validation_session (
    session_id text NOT NULL, medium text NOT NULL, address text NOT NULL, client_secret text NOT NULL, last_send_attempt bigint NOT NULL,
    validated_at bigint,
    CONSTRAINT threepid_validation_session_pkey PRIMARY KEY (session_id)
);
CREATE TABLE threepid_validation_token (
    token text NOT NULL, session_id text NOT NULL, next_link text, expires bigint NOT NULL,
    CONSTRAINT threepid_validation_token_pkey PRIMARY KEY (token)
);
CREATE TABLE timeline_gaps (
    room_id text NOT NULL, instance_name text NOT NULL, stream_ordering bigint NOT NULL
);
CREATE TABLE ui_auth_sessions (
    session_id text NOT NULL, creation_time bigint NOT NULL, serverdict text NOT NULL, clientdict text NOT NULL, uri text NOT NULL, method text NOT
    NULL, description text NOT NULL,
    CONSTRAINT ui_auth_sessions_session_id_key UNIQUE (session_id)
);
CREATE TABLE ui_auth_sessions_credentials (
    session_id text NOT NULL, stage_type text NOT NULL, result text NOT NULL,
    CONSTRAINT ui_auth_sessions_credentials_session_id_stage_type_key UNIQUE (session_id, stage_type)
);
CREATE TABLE ui_auth_sessions_ips (
    session_id text NOT NULL, ip text NOT NULL, user_agent text NOT NULL,
    CONSTRAINT ui_auth_sessions_ips_session_id_ip_user_agent_key UNIQUE (session_id, ip, user_agent)
);
CREATE TABLE un_partial_stated_event_stream (
    stream_id bigint NOT NULL, instance_name text NOT NULL, event_id text NOT NULL, rejection_status_changed boolean NOT NULL,
    CONSTRAINT un_partial_stated_event_stream_pkey PRIMARY KEY (stream_id)
);
CREATE TABLE un_partial_stated_room_stream (
    stream_id bigint NOT NULL, instance_name text NOT NULL, room_id text NOT NULL,
    CONSTRAINT un_partial_stated_room_stream_pkey PRIMARY KEY (stream_id)
);
CREATE TABLE user_daily_visits (
    user_id text NOT NULL, device_id text, "timestamp" bigint NOT NULL, user_agent text
);
CREATE TABLE user_directory (
    user_id text NOT NULL, room_id text, display_name text, avatar_url text
);
CREATE TABLE user_directory_search (
    user_id text NOT NULL, vector tsvector
);
CREATE TABLE user_directory_stale_remote_users (
    user_id text NOT NULL, user_server_name text NOT NULL, next_try_at_ts bigint NOT NULL, retry_counter integer NOT NULL,
    CONSTRAINT user_directory_stale_remote_users_pkey PRIMARY KEY (user_id)
);
CREATE TABLE user_directory_stream_pos (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint, CONSTRAINT user_directory_stream_pos_lock_check CHECK ((lock = 'X'::bpchar)),
    CONSTRAINT user_directory_stream_pos_lock_key UNIQUE (lock)
);
CREATE TABLE user_external_ids (
    auth_provider text NOT NULL, external_id text NOT NULL, user_id text NOT NULL,
    CONSTRAINT user_external_ids_auth_provider_external_id_key UNIQUE (auth_provider, external_id)
);
CREATE TABLE user_filters (
    user_id text NOT NULL, filter_id bigint NOT NULL, filter_json bytea NOT NULL, full_user_id text, CONSTRAINT full_user_id_not_null CHECK
    ((full_user_id IS NOT NULL))
);
CREATE TABLE user_ips (
    user_id text NOT NULL, access_token text NOT NULL, device_id text, ip text NOT NULL, user_agent text NOT NULL, last_seen bigint NOT NULL
);
CREATE TABLE user_reports (
    id bigint NOT NULL, received_ts bigint NOT NULL, target_user_id text NOT NULL, user_id text NOT NULL, reason text NOT NULL,
    CONSTRAINT user_reports_pkey PRIMARY KEY (id)
);
CREATE TABLE user_signature_stream (
    stream_id bigint NOT NULL, from_user_id text NOT NULL, user_ids text NOT NULL, instance_name text
);
CREATE TABLE user_stats_current (
    user_id text NOT NULL, joined_rooms bigint NOT NULL, completed_delta_stream_id bigint NOT NULL,
    CONSTRAINT user_stats_current_pkey PRIMARY KEY (user_id)
);
CREATE TABLE user_threepid_id_server (
    user_id text NOT NULL, medium text NOT NULL, address text NOT NULL, id_server text NOT NULL
);
CREATE TABLE user_threepids (
    user_id text NOT NULL, medium text NOT NULL, address text NOT NULL, validated_at bigint NOT NULL, added_at bigint NOT NULL,
    CONSTRAINT medium_address UNIQUE (medium, address)
);
CREATE TABLE users (
    name text, password_hash text, creation_ts bigint, admin smallint DEFAULT 0 NOT NULL, upgrade_ts bigint, is_guest smallint DEFAULT 0 NOT NULL,
    appservice_id text, consent_version text, consent_server_notice_sent text, user_type text, deactivated smallint DEFAULT 0 NOT NULL, shadow_banned
    boolean, consent_ts bigint, approved boolean, locked boolean DEFAULT false NOT NULL, suspended boolean DEFAULT false NOT NULL,
    CONSTRAINT users_name_key UNIQUE (name)
);
CREATE TABLE users_in_public_rooms (
    user_id text NOT NULL, room_id text NOT NULL
);
CREATE TABLE users_pending_deactivation (
    user_id text NOT NULL
);
CREATE TABLE users_to_send_full_presence_to (
    user_id text NOT NULL, presence_stream_id bigint,
    CONSTRAINT users_to_send_full_presence_to_pkey PRIMARY KEY (user_id)
);
CREATE TABLE users_who_share_private_rooms (
    user_id text NOT NULL, other_user_id text NOT NULL, room_id text NOT NULL
);
CREATE TABLE worker_locks (
    lock_name text NOT NULL, lock_key text NOT NULL, instance_name text NOT NULL, token text NOT NULL, last_renewed_ts bigint NOT NULL
);
CREATE UNLOGGED TABLE worker_read_write_locks (
    lock_name text NOT NULL, lock_key text NOT NULL, instance_name text NOT NULL, write_lock boolean NOT NULL, token text NOT NULL, last_renewed_ts
    bigint NOT NULL
);
CREATE UNLOGGED TABLE worker_read_write_locks_mode (
    lock_name text NOT NULL, lock_key text NOT NULL, write_lock boolean NOT NULL, token text NOT NULL
);
