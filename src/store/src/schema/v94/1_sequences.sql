-- Schema 94 of Synapse 1.163.2 with all its background updates done: sequences.

CREATE SEQUENCE account_data_sequence;
CREATE SEQUENCE application_services_txn_id_seq;
CREATE SEQUENCE cache_invalidation_stream_seq;
CREATE SEQUENCE device_inbox_sequence;
CREATE SEQUENCE device_lists_sequence;
CREATE SEQUENCE e2e_cross_signing_keys_sequence;
CREATE SEQUENCE event_auth_chain_id;
CREATE SEQUENCE events_backfill_stream_seq;
CREATE SEQUENCE events_stream_seq;
CREATE SEQUENCE instance_map_instance_id_seq AS integer;
CREATE SEQUENCE presence_stream_sequence;
CREATE SEQUENCE profile_updates_sequence;
CREATE SEQUENCE push_rules_stream_sequence;
CREATE SEQUENCE pushers_sequence;
CREATE SEQUENCE quarantined_media_id_seq;
CREATE SEQUENCE receipts_sequence;
CREATE SEQUENCE state_group_id_seq;
CREATE SEQUENCE sticky_events_sequence;
CREATE SEQUENCE thread_subscriptions_sequence START WITH 2;
CREATE SEQUENCE un_partial_stated_event_stream_sequence;
CREATE SEQUENCE un_partial_stated_room_stream_sequence;
CREATE SEQUENCE user_id_seq;
