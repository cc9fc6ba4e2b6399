\echo Use "CREATE EXTENSION pg_querylens" to load this file. \quit

-- Released files stay as they are: a change goes into a new version and a script pg_querylens--OLD--NEW.sql.

CREATE FUNCTION plans_data(
    OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT toplevel boolean, OUT plan_id bigint, OUT collapsed_plan_id bigint,
    OUT calls bigint, OUT generic_calls bigint, OUT failed_calls bigint, OUT failed_time float8, OUT rows bigint,
    OUT execution float8[], OUT plannings bigint, OUT planning float8[],
    OUT blocks bigint[], OUT io_times float8[], OUT wal bigint[], OUT jit_functions bigint, OUT jit_times float8[],
    OUT workers_planned bigint, OUT workers_launched bigint, OUT histogram bigint[], OUT first_seen float8, OUT last_seen float8
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plans_wrapper';

CREATE FUNCTION statements_data(
    OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT toplevel boolean, OUT plan_id bigint, OUT since float8, OUT changes bigint
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'statements_wrapper';

CREATE FUNCTION changes_data(
    OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT toplevel boolean, OUT previous_plan_id bigint, OUT plan_id bigint,
    OUT first_at float8, OUT at float8, OUT count bigint,
    OUT previous_calls bigint, OUT previous_execution float8[], OUT previous_rows bigint,
    OUT calls bigint, OUT execution float8[], OUT rows bigint
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'changes_wrapper';

CREATE FUNCTION regressions(
    minimum_calls bigint DEFAULT 30, minimum_ratio float8 DEFAULT 1.5, minimum_confidence float8 DEFAULT 0.99,
    OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT toplevel boolean, OUT current_plan_id bigint, OUT previous_plan_id bigint,
    OUT previous_mean float8, OUT current_mean float8, OUT ratio float8, OUT confidence float8,
    OUT cause text, OUT severity text, OUT detected_at float8
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'regressions_wrapper';
COMMENT ON FUNCTION regressions(bigint, float8, float8) IS
    'statements whose mean time has grown by the ratio, with so many calls before and after, and with that confidence by Welch''s test';

CREATE FUNCTION activity_data(
    OUT pid integer, OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT plan_id bigint, OUT since float8
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'activity_wrapper';

CREATE FUNCTION errors_data(
    OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT toplevel boolean, OUT sqlstate text, OUT count bigint, OUT time_ms float8,
    OUT last_seen float8
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'errors_wrapper';

CREATE FUNCTION nodes_data(
    OUT plan_id bigint, OUT node bigint, OUT node_type text, OUT executions bigint, OUT loops float8, OUT estimated_rows float8,
    OUT actual_rows float8, OUT filtered_rows float8, OUT timed_executions bigint, OUT time_ms float8
) RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'nodes_wrapper';

CREATE FUNCTION info_data(OUT name text, OUT value bigint)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'info_wrapper';

CREATE FUNCTION get_plan_json(plan_id bigint) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plan_json_wrapper';
COMMENT ON FUNCTION get_plan_json(bigint) IS 'the plan as JSON, without any literal; NULL if its text is not kept';

CREATE FUNCTION reset(userid oid DEFAULT 0, dbid oid DEFAULT 0, queryid bigint DEFAULT 0) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reset_wrapper';
COMMENT ON FUNCTION reset(oid, oid, bigint) IS 'forgets statistics of a user, a database, a statement; of all where 0 is given';

-- Normalised texts, if pg_stat_statements has them.
CREATE FUNCTION query_texts(OUT userid oid, OUT dbid oid, OUT queryid bigint, OUT query text) RETURNS SETOF record
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
DECLARE
    statements regclass;
BEGIN
    SELECT format('%I.pg_stat_statements', n.nspname)::regclass INTO statements
        FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'pg_stat_statements';
    IF statements IS NOT NULL AND current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%' THEN
        RETURN QUERY EXECUTE format('SELECT DISTINCT ON (1, 2, 3) userid, dbid, queryid, query FROM %s', statements);
    END IF;
END
$$;

CREATE VIEW plans AS
    SELECT userid, dbid, queryid, toplevel, plan_id, collapsed_plan_id, calls, generic_calls, calls - generic_calls AS custom_calls,
        failed_calls, failed_time AS failed_exec_time_ms, rows,
        execution[1] AS total_exec_time_ms, execution[2] AS min_exec_time_ms, execution[3] AS max_exec_time_ms,
        execution[4] AS mean_exec_time_ms, execution[5] AS stddev_exec_time_ms,
        plannings, planning[1] AS planning_time_ms, planning[2] AS min_planning_time_ms, planning[3] AS max_planning_time_ms,
        planning[4] AS mean_planning_time_ms, planning[5] AS stddev_planning_time_ms,
        blocks[1] AS shared_blks_hit, blocks[2] AS shared_blks_read, blocks[3] AS shared_blks_dirtied, blocks[4] AS shared_blks_written,
        blocks[5] AS local_blks_hit, blocks[6] AS local_blks_read, blocks[7] AS local_blks_dirtied, blocks[8] AS local_blks_written,
        blocks[9] AS temp_blks_read, blocks[10] AS temp_blks_written,
        io_times[1] AS shared_blk_read_time_ms, io_times[2] AS shared_blk_write_time_ms,
        io_times[3] AS local_blk_read_time_ms, io_times[4] AS local_blk_write_time_ms,
        io_times[5] AS temp_blk_read_time_ms, io_times[6] AS temp_blk_write_time_ms,
        wal[1] AS wal_records, wal[2] AS wal_fpi, wal[3] AS wal_bytes, wal[4] AS wal_buffers_full,
        jit_functions, jit_times[1] + jit_times[3] + jit_times[4] + jit_times[5] AS jit_time_ms,
        jit_times[1] AS jit_generation_time_ms, jit_times[2] AS jit_deform_time_ms, jit_times[3] AS jit_inlining_time_ms,
        jit_times[4] AS jit_optimization_time_ms, jit_times[5] AS jit_emission_time_ms,
        workers_planned AS parallel_workers_planned, workers_launched AS parallel_workers_launched,
        histogram AS exec_time_histogram, to_timestamp(first_seen) AS first_execution, to_timestamp(last_seen) AS last_execution
    FROM plans_data();
COMMENT ON VIEW plans IS 'every plan of every statement, with statistics of its own';
COMMENT ON COLUMN plans.exec_time_histogram IS
    'counts by time: an OTLP exponential histogram of scale 1 over seconds, whose 64 buckets have the indexes -40 to 23';

CREATE VIEW queries AS
    SELECT s.queryid, t.query AS query_text, s.userid, s.dbid, s.toplevel, s.plan_id AS current_plan_id,
        to_timestamp(s.since) AS current_plan_since, s.changes AS plan_changes
    FROM statements_data() s LEFT JOIN query_texts() t USING (userid, dbid, queryid);
COMMENT ON VIEW queries IS 'statements that have plans; with their normalised texts if pg_stat_statements is there';

CREATE VIEW current_plans AS
    SELECT p.*, get_plan_json(p.plan_id) AS plan_text
    FROM plans p JOIN statements_data() s USING (userid, dbid, queryid, toplevel, plan_id);
COMMENT ON VIEW current_plans IS 'for every statement, the plan that it was executed by last';

CREATE VIEW plan_history AS
    SELECT userid, dbid, queryid, toplevel, plan_id, previous_plan_id, to_timestamp(first_at) AS first_change_timestamp,
        to_timestamp(at) AS change_timestamp, count AS changes,
        previous_calls, previous_execution[4] AS previous_mean_exec_time_ms, previous_execution[5] AS previous_stddev_exec_time_ms,
        previous_rows, calls AS execution_count, execution[1] AS total_exec_time_ms, execution[4] AS mean_exec_time_ms,
        execution[5] AS stddev_exec_time_ms, rows
    FROM changes_data();
COMMENT ON VIEW plan_history IS 'changes of plans, with statistics of the plan before and of the plan after';

CREATE VIEW performance_regressions AS
    SELECT userid, dbid, queryid, toplevel, current_plan_id, previous_plan_id, previous_mean AS previous_mean_exec_time_ms,
        current_mean AS mean_exec_time_ms, (ratio - 1) * 100 AS performance_change_percent, cause AS regression_type,
        severity AS regression_severity, confidence, to_timestamp(detected_at) AS detected_at
    FROM regressions();
COMMENT ON VIEW performance_regressions IS 'statements that became slower by half at least, with a confidence of 99 %';

CREATE VIEW activity AS
    SELECT pid, userid, dbid, queryid, nullif(plan_id, 0) AS plan_id, to_timestamp(since) AS since FROM activity_data();
COMMENT ON VIEW activity IS 'what is being executed, by which plan';

CREATE VIEW errors AS
    SELECT userid, dbid, queryid, toplevel, sqlstate, count, time_ms AS exec_time_ms, to_timestamp(last_seen) AS last_seen FROM errors_data();
COMMENT ON VIEW errors IS 'failed executions by SQLSTATE, with the time that they had used; 57014 is cancelled or timed out';

CREATE VIEW nodes AS
    SELECT plan_id, node, node_type, executions, loops, estimated_rows, actual_rows, filtered_rows,
        CASE WHEN estimated_rows > 0 AND actual_rows > 0
            THEN greatest(estimated_rows / actual_rows, actual_rows / estimated_rows) END AS estimation_error,
        timed_executions, time_ms
    FROM nodes_data();
COMMENT ON VIEW nodes IS 'nodes of plans in sampled executions: rows expected and rows seen';

CREATE VIEW info AS SELECT name, value FROM info_data();
COMMENT ON VIEW info IS 'the extension itself: what it holds, what it lost and why';

-- Nothing for PUBLIC; to others than the members of pg_read_all_stats, an administrator can grant the same, and they see what is theirs.
REVOKE ALL ON SCHEMA querylens FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA querylens FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA querylens FROM PUBLIC;
GRANT USAGE ON SCHEMA querylens TO pg_read_all_stats;
GRANT SELECT ON ALL TABLES IN SCHEMA querylens TO pg_read_all_stats;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA querylens TO pg_read_all_stats;
REVOKE EXECUTE ON FUNCTION reset(oid, oid, bigint) FROM pg_read_all_stats;
