SELECT json_build_object(
        'id', run.id, 'queue_id', extra.queue_id, 'codebase', run.codebase, 'suite', run.suite,
        'change_set', run.change_set, 'command', run.command, 'result_code', run.result_code,
        'description', run.description, 'start_time', run.start_time,
        'finish_time', run.finish_time, 'instigated_context', run.instigated_context,
        'context', run.context, 'main_branch_revision', run.main_branch_revision,
        'revision', run.revision, 'result', run.result, 'value', run.value,
        'vcs_type', run.vcs_type, 'branch_url', run.branch_url, 'subpath', run.subpath,
        'target_branch_url', run.target_branch_url, 'worker', run.worker,
        'worker_link', run.worker_link, 'failure_stage', run.failure_stage,
        'failure_details', run.failure_details, 'failure_transient', run.failure_transient,
        'resume_from', run.resume_from, 'publish_status', run.publish_status,
        'logfilenames', run.logfilenames, 'facts', extra.facts,
        'branches', (
            SELECT coalesce(
                json_agg(
                    json_build_array(b.role, b.remote_name, b.base_revision, b.revision)
                    ORDER BY b.role),
                '[]')
            FROM new_result_branch AS b WHERE b.run_id = run.id
        ),
        'tags', (
            SELECT coalesce(json_agg(json_build_array(t.actual_name, t.revision)), '[]')
            FROM unnest(run.result_tags) AS t
        ))::text
FROM run
LEFT JOIN LATERAL (
    SELECT * FROM runner_run WHERE run_id = run.id OFFSET 0
) AS extra ON true
WHERE run.id = ANY($1)
