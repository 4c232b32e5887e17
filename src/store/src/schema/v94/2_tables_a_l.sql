-- Schema 94 of Synapse 1.163.2 with all its background updates done: tables a to l.

CREATE TABLE access_tokens (
    id bigint NOT NULL, user_id text NOT NULL, device_id text, token text NOT NULL, valid_until_ms bigint, puppets_user_id text, last_validated
    bigint, refresh_token_id bigint, used boolean,
    CONSTRAINT access_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT access_tokens_token_key UNIQUE (token)
);
CREATE TABLE account_data (
    user_id text NOT NULL, account_data_type text NOT NULL, stream_id bigint NOT NULL, content text NOT NULL, instance_name text,
    CONSTRAINT account_data_uniqueness UNIQUE (user_id, account_data_type)
);
CREATE TABLE account_validity (
    user_id text NOT NULL, expiration_ts_ms bigint NOT NULL, email_sent boolean NOT NULL, renewal_token text, token_used_ts_ms bigint,
    CONSTRAINT account_validity_pkey PRIMARY KEY (user_id)
);
CREATE TABLE application_services_state (
    as_id text NOT NULL, state character varying(5), read_receipt_stream_id bigint, presence_stream_id bigint, to_device_stream_id bigint,
    device_list_stream_id bigint,
    CONSTRAINT application_services_state_pkey PRIMARY KEY (as_id)
);
CREATE TABLE application_services_txns (
    as_id text NOT NULL, txn_id bigint NOT NULL, event_ids text NOT NULL,
    CONSTRAINT application_services_txns_as_id_txn_id_key UNIQUE (as_id, txn_id)
);
CREATE TABLE applied_module_schemas (
    module_name text NOT NULL, file text NOT NULL,
    CONSTRAINT applied_module_schemas_module_name_file_key UNIQUE (module_name, file)
);
CREATE TABLE applied_schema_deltas (
    version integer NOT NULL, file text NOT NULL,
    CONSTRAINT applied_schema_deltas_version_file_key UNIQUE (version, file)
);
CREATE TABLE appservice_room_list (
    appservice_id text NOT NULL, network_id text NOT NULL, room_id text NOT NULL
);
CREATE TABLE appservice_stream_position (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_ordering bigint, CONSTRAINT appservice_stream_position_lock_check CHECK ((lock =
    'X'::bpchar)),
    CONSTRAINT appservice_stream_position_lock_key UNIQUE (lock)
);
CREATE TABLE background_updates (
    update_name text NOT NULL, progress_json text NOT NULL, depends_on text, ordering integer DEFAULT 0 NOT NULL,
    CONSTRAINT background_updates_uniqueness UNIQUE (update_name)
);
CREATE TABLE blocked_rooms (
    room_id text NOT NULL, user_id text NOT NULL
);
CREATE TABLE cache_invalidation_stream_by_instance (
    stream_id bigint NOT NULL, instance_name text NOT NULL, cache_func text NOT NULL, keys text[], invalidation_ts bigint
);
CREATE TABLE current_state_delta_stream (
    stream_id bigint NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, event_id text, prev_event_id text, instance_name
    text
);
CREATE TABLE current_state_events (
    event_id text NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL, membership text, event_stream_ordering bigint,
    CONSTRAINT current_state_events_event_id_key UNIQUE (event_id),
    CONSTRAINT current_state_events_room_id_type_state_key_key UNIQUE (room_id, type, state_key)
);
CREATE TABLE dehydrated_devices (
    user_id text NOT NULL, device_id text NOT NULL, device_data text NOT NULL,
    CONSTRAINT dehydrated_devices_pkey PRIMARY KEY (user_id)
);
CREATE TABLE delayed_events (
    delay_id text NOT NULL, user_localpart text NOT NULL, device_id text, delay bigint NOT NULL, send_ts bigint NOT NULL, room_id text NOT NULL,
    event_type text NOT NULL, state_key text, origin_server_ts bigint, content text NOT NULL, is_processed boolean DEFAULT false NOT NULL,
    sticky_duration_ms bigint,
    CONSTRAINT delayed_events_pkey PRIMARY KEY (user_localpart, delay_id)
);
CREATE TABLE delayed_events_stream_pos (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint NOT NULL, CONSTRAINT delayed_events_stream_pos_lock_check CHECK ((lock =
    'X'::bpchar)),
    CONSTRAINT delayed_events_stream_pos_lock_key UNIQUE (lock)
);
CREATE TABLE deleted_pushers (
    stream_id bigint NOT NULL, app_id text NOT NULL, pushkey text NOT NULL, user_id text NOT NULL, instance_name text
);
CREATE TABLE destination_rooms (
    destination text NOT NULL, room_id text NOT NULL, stream_ordering bigint NOT NULL,
    CONSTRAINT destination_rooms_pkey PRIMARY KEY (destination, room_id)
);
CREATE TABLE destination_rooms_sticky_events_backlog (
    destination text NOT NULL, room_id text NOT NULL, sticky_events_stream_position integer NOT NULL,
    CONSTRAINT destination_rooms_sticky_events_backlog_pkey PRIMARY KEY (destination, room_id)
);
CREATE TABLE destinations (
    destination text NOT NULL, retry_last_ts bigint, retry_interval bigint, failure_ts bigint, last_successful_stream_ordering bigint,
    CONSTRAINT destinations_pkey PRIMARY KEY (destination)
);
CREATE TABLE device_auth_providers (
    user_id text NOT NULL, device_id text NOT NULL, auth_provider_id text NOT NULL, auth_provider_session_id text NOT NULL
);
CREATE TABLE device_federation_inbox (
    origin text NOT NULL, message_id text NOT NULL, received_ts bigint NOT NULL, instance_name text
);
CREATE TABLE device_federation_outbox (
    destination text NOT NULL, stream_id bigint NOT NULL, queued_ts bigint NOT NULL, messages_json text NOT NULL, instance_name text
);
CREATE TABLE device_inbox (
    user_id text NOT NULL, device_id text NOT NULL, stream_id bigint NOT NULL, message_json text NOT NULL, instance_name text
);
CREATE TABLE device_lists_changes_converted_stream_position (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint NOT NULL, room_id text NOT NULL, instance_name text, CONSTRAINT
    device_lists_changes_converted_stream_position_lock_check CHECK ((lock = 'X'::bpchar)),
    CONSTRAINT device_lists_changes_converted_stream_position_lock_key UNIQUE (lock)
);
CREATE TABLE device_lists_changes_in_room (
    user_id text NOT NULL, device_id text NOT NULL, room_id text NOT NULL, stream_id bigint NOT NULL, converted_to_destinations boolean NOT NULL,
    opentracing_context text, instance_name text, inserted_ts bigint
);
CREATE TABLE device_lists_changes_in_room_max_pruned_stream_id (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint NOT NULL,
    CONSTRAINT device_lists_changes_in_room_max_pruned_stream_id_lock_key UNIQUE (lock)
);
CREATE TABLE device_lists_outbound_last_success (
    destination text NOT NULL, user_id text NOT NULL, stream_id bigint NOT NULL
);
CREATE TABLE device_lists_outbound_pokes (
    destination text NOT NULL, stream_id bigint NOT NULL, user_id text NOT NULL, device_id text NOT NULL, sent boolean NOT NULL, ts bigint NOT NULL,
    opentracing_context text, instance_name text
);
CREATE TABLE device_lists_remote_cache (
    user_id text NOT NULL, device_id text NOT NULL, content text NOT NULL
);
CREATE TABLE device_lists_remote_extremeties (
    user_id text NOT NULL, stream_id text NOT NULL
);
CREATE TABLE device_lists_remote_pending (
    stream_id bigint NOT NULL, user_id text NOT NULL, device_id text NOT NULL, instance_name text,
    CONSTRAINT device_lists_remote_pending_pkey PRIMARY KEY (stream_id)
);
CREATE TABLE device_lists_remote_resync (
    user_id text NOT NULL, added_ts bigint NOT NULL
);
CREATE TABLE device_lists_stream (
    stream_id bigint NOT NULL, user_id text NOT NULL, device_id text NOT NULL, instance_name text
);
CREATE TABLE devices (
    user_id text NOT NULL, device_id text NOT NULL, display_name text, last_seen bigint, ip text, user_agent text, hidden boolean DEFAULT false,
    CONSTRAINT device_uniqueness UNIQUE (user_id, device_id)
);
CREATE TABLE e2e_cross_signing_keys (
    user_id text NOT NULL, keytype text NOT NULL, keydata text NOT NULL, stream_id bigint NOT NULL, updatable_without_uia_before_ms bigint,
    instance_name text
);
CREATE TABLE e2e_cross_signing_signatures (
    user_id text NOT NULL, key_id text NOT NULL, target_user_id text NOT NULL, target_device_id text NOT NULL, signature text NOT NULL
);
CREATE TABLE e2e_device_keys_json (
    user_id text NOT NULL, device_id text NOT NULL, ts_added_ms bigint NOT NULL, key_json text NOT NULL,
    CONSTRAINT e2e_device_keys_json_uniqueness UNIQUE (user_id, device_id)
);
CREATE TABLE e2e_fallback_keys_json (
    user_id text NOT NULL, device_id text NOT NULL, algorithm text NOT NULL, key_id text NOT NULL, key_json text NOT NULL, used boolean DEFAULT false
    NOT NULL,
    CONSTRAINT e2e_fallback_keys_json_uniqueness UNIQUE (user_id, device_id, algorithm)
);
CREATE TABLE e2e_one_time_keys_json (
    user_id text NOT NULL, device_id text NOT NULL, algorithm text NOT NULL, key_id text NOT NULL, ts_added_ms bigint NOT NULL, key_json text NOT
    NULL,
    CONSTRAINT e2e_one_time_keys_json_uniqueness UNIQUE (user_id, device_id, algorithm, key_id)
);
CREATE TABLE e2e_room_keys (
    user_id text NOT NULL, room_id text NOT NULL, session_id text NOT NULL, version bigint NOT NULL, first_message_index integer, forwarded_count
    integer, is_verified boolean, session_data text NOT NULL
);
CREATE TABLE e2e_room_keys_versions (
    user_id text NOT NULL, version bigint NOT NULL, algorithm text NOT NULL, auth_data text NOT NULL, deleted smallint DEFAULT 0 NOT NULL, etag bigint
);
CREATE TABLE erased_users (
    user_id text NOT NULL
);
CREATE TABLE event_auth (
    event_id text NOT NULL, auth_id text NOT NULL, room_id text NOT NULL
);
CREATE TABLE event_auth_chain_links (
    origin_chain_id bigint NOT NULL, origin_sequence_number bigint NOT NULL, target_chain_id bigint NOT NULL, target_sequence_number bigint NOT NULL
);
CREATE TABLE event_auth_chain_to_calculate (
    event_id text NOT NULL, room_id text NOT NULL, type text NOT NULL, state_key text NOT NULL,
    CONSTRAINT event_auth_chain_to_calculate_pkey PRIMARY KEY (event_id)
);
CREATE TABLE event_auth_chains (
    event_id text NOT NULL, chain_id bigint NOT NULL, sequence_number bigint NOT NULL,
    CONSTRAINT event_auth_chains_pkey PRIMARY KEY (event_id)
);
CREATE TABLE event_backward_extremities (
    event_id text NOT NULL, room_id text NOT NULL,
    CONSTRAINT event_backward_extremities_event_id_room_id_key UNIQUE (event_id, room_id)
);
CREATE TABLE event_edges (
    event_id text NOT NULL, prev_event_id text NOT NULL, room_id text, is_state boolean DEFAULT false NOT NULL
);
CREATE TABLE event_expiry (
    event_id text NOT NULL, expiry_ts bigint NOT NULL,
    CONSTRAINT event_expiry_pkey PRIMARY KEY (event_id)
);
CREATE TABLE event_failed_pull_attempts (
    room_id text NOT NULL, event_id text NOT NULL, num_attempts integer NOT NULL, last_attempt_ts bigint NOT NULL, last_cause text NOT NULL,
    CONSTRAINT event_failed_pull_attempts_pkey PRIMARY KEY (room_id, event_id)
);
CREATE TABLE event_forward_extremities (
    event_id text NOT NULL, room_id text NOT NULL,
    CONSTRAINT event_forward_extremities_event_id_room_id_key UNIQUE (event_id, room_id)
);
CREATE TABLE event_json (
    event_id text NOT NULL, room_id text NOT NULL, internal_metadata text NOT NULL, json text NOT NULL, format_version integer,
    CONSTRAINT event_json_event_id_key UNIQUE (event_id)
);
CREATE TABLE event_labels (
    event_id text NOT NULL, label text NOT NULL, room_id text NOT NULL, topological_ordering bigint NOT NULL,
    CONSTRAINT event_labels_pkey PRIMARY KEY (event_id, label)
);
CREATE TABLE event_push_actions (
    room_id text NOT NULL, event_id text NOT NULL, user_id text NOT NULL, profile_tag character varying(32), actions text NOT NULL,
    topological_ordering bigint, stream_ordering bigint, notif smallint, highlight smallint, unread smallint, thread_id text, CONSTRAINT
    event_push_actions_thread_id CHECK ((thread_id IS NOT NULL)),
    CONSTRAINT event_id_user_id_profile_tag_uniqueness UNIQUE (room_id, event_id, user_id, profile_tag)
);
CREATE TABLE event_push_actions_staging (
    event_id text NOT NULL, user_id text NOT NULL, actions text NOT NULL, notif smallint NOT NULL, highlight smallint NOT NULL, unread smallint,
    thread_id text, inserted_ts bigint DEFAULT (EXTRACT(epoch FROM now()) * (1000)::numeric), CONSTRAINT event_push_actions_staging_thread_id CHECK
    ((thread_id IS NOT NULL))
);
CREATE TABLE event_push_summary (
    user_id text NOT NULL, room_id text NOT NULL, notif_count bigint NOT NULL, stream_ordering bigint NOT NULL, unread_count bigint,
    last_receipt_stream_ordering bigint, thread_id text, CONSTRAINT event_push_summary_thread_id CHECK ((thread_id IS NOT NULL))
);
CREATE TABLE event_push_summary_last_receipt_stream_id (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_id bigint NOT NULL, CONSTRAINT event_push_summary_last_receipt_stream_id_lock_check CHECK
    ((lock = 'X'::bpchar)),
    CONSTRAINT event_push_summary_last_receipt_stream_id_lock_key UNIQUE (lock)
);
CREATE TABLE event_push_summary_stream_ordering (
    lock character(1) DEFAULT 'X'::bpchar NOT NULL, stream_ordering bigint NOT NULL, CONSTRAINT event_push_summary_stream_ordering_lock_check CHECK
    ((lock = 'X'::bpchar)),
    CONSTRAINT event_push_summary_stream_ordering_lock_key UNIQUE (lock)
);
CREATE TABLE event_relations (
    event_id text NOT NULL, relates_to_id text NOT NULL, relation_type text NOT NULL, aggregation_key text
);
CREATE TABLE event_reports (
    id bigint NOT NULL, received_ts bigint NOT NULL, room_id text NOT NULL, event_id text NOT NULL, user_id text NOT NULL, reason text, content text,
    CONSTRAINT event_reports_pkey PRIMARY KEY (id)
);
CREATE TABLE event_search (
    event_id text, room_id text, sender text, key text, vector tsvector, origin_server_ts bigint, stream_ordering bigint
);
CREATE TABLE event_to_state_groups (
    event_id text NOT NULL, state_group bigint NOT NULL,
    CONSTRAINT event_to_state_groups_event_id_key UNIQUE (event_id)
);
CREATE TABLE event_txn_id_device_id (
    event_id text NOT NULL, room_id text NOT NULL, user_id text NOT NULL, device_id text NOT NULL, txn_id text NOT NULL, inserted_ts bigint NOT NULL
);
CREATE TABLE events (
    topological_ordering bigint NOT NULL, event_id text NOT NULL, type text NOT NULL, room_id text NOT NULL, content text, unrecognized_keys text,
    processed boolean NOT NULL, outlier boolean NOT NULL, depth bigint DEFAULT 0 NOT NULL, origin_server_ts bigint, received_ts bigint, sender text,
    contains_url boolean, instance_name text, stream_ordering bigint, state_key text, rejection_reason text,
    CONSTRAINT events_event_id_key UNIQUE (event_id)
);
CREATE TABLE ex_outlier_stream (
    event_stream_ordering bigint NOT NULL, event_id text NOT NULL, state_group bigint NOT NULL, instance_name text,
    CONSTRAINT ex_outlier_stream_pkey PRIMARY KEY (event_stream_ordering)
);
CREATE TABLE federation_inbound_events_staging (
    origin text NOT NULL, room_id text NOT NULL, event_id text NOT NULL, received_ts bigint NOT NULL, event_json text NOT NULL, internal_metadata text
    NOT NULL
);
CREATE TABLE federation_stream_position (
    type text NOT NULL, stream_id bigint NOT NULL, instance_name text DEFAULT 'master'::text NOT NULL
);
CREATE TABLE ignored_users (
    ignorer_user_id text NOT NULL, ignored_user_id text NOT NULL
);
CREATE TABLE instance_map (
    instance_id integer NOT NULL DEFAULT nextval('instance_map_instance_id_seq'::regclass), instance_name text NOT NULL,
    CONSTRAINT instance_map_pkey PRIMARY KEY (instance_id)
);
CREATE TABLE local_current_membership (
    room_id text NOT NULL, user_id text NOT NULL, event_id text NOT NULL, membership text NOT NULL, event_stream_ordering bigint
);
CREATE TABLE local_media_repository (
    media_id text, media_type text, media_length integer, created_ts bigint, upload_name text, user_id text, quarantined_by text, url_cache text,
    last_access_ts bigint, safe_from_quarantine boolean DEFAULT false NOT NULL, authenticated boolean DEFAULT false NOT NULL, sha256 text,
    CONSTRAINT local_media_repository_media_id_key UNIQUE (media_id)
);
CREATE TABLE local_media_repository_thumbnails (
    media_id text, thumbnail_width integer, thumbnail_height integer, thumbnail_type text, thumbnail_method text, thumbnail_length integer
);
CREATE TABLE local_media_repository_url_cache (
    url text, response_code integer, etag text, expires_ts bigint, og text, media_id text, download_ts bigint
);
CREATE TABLE login_tokens (
    token text NOT NULL, user_id text NOT NULL, expiry_ts bigint NOT NULL, used_ts bigint, auth_provider_id text, auth_provider_session_id text,
    CONSTRAINT login_tokens_pkey PRIMARY KEY (token)
);
