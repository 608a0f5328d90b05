INSERT INTO codebase (name, branch_url, url, branch, subpath, vcs_type, value, web_url, inactive)
    VALUES ('cb-old', 'https://example.com/old.git', 'https://example.com/old.git', NULL, NULL, 'git', 7, 'https://example.com/old', false),
           ('cb-new', NULL, NULL, NULL, NULL, NULL, NULL, NULL, true), (NULL, 'https://example.com/nameless', 'https://example.com/nameless', NULL, '', 'bzr', 1, NULL, false);
INSERT INTO worker (name, password, link) VALUES ('w-old', crypt('secret-old', gen_salt('bf')), 'http://w/'), ('w-md5', crypt('secret-md5', gen_salt('md5')), NULL);
INSERT INTO change_set (id, campaign, state) VALUES ('run-old', 'gen', 'done'), ('set-1', 'gen', 'working');
INSERT INTO run (id, command, description, start_time, finish_time, result_code, main_branch_revision, revision, result, suite, vcs_type, branch_url,
        logfilenames, publish_status, value, worker, result_tags, failure_details, failure_transient, change_set, codebase)
    VALUES ('run-old', 'old-command', 'ä', '2026-01-01T10:00:00.000001', '2026-01-01T10:01:00', 'success', 'r1', 'r2', '{"a": [1, null]}', 'gen', 'git',
        'https://example.com/old.git', '{worker.log}', 'approved', 3, 'w-old', ARRAY[ROW('upstream/1.0', 't1')::result_tag], NULL, NULL, 'run-old', 'cb-old');
INSERT INTO run (id, start_time, result_code, suite, logfilenames, change_set, codebase, resume_from)
    VALUES ('run-odd', NULL, 'nothing-new-to-do', 'other', '{}', 'set-1', 'cb-old', 'run-old');
INSERT INTO new_result_branch (run_id, role, remote_name, base_revision, revision) VALUES ('run-old', 'main', 'gen', 'r1', 'r2');
INSERT INTO named_publish_policy (name, per_branch_policy, rate_limit_bucket)
    VALUES ('theirs', ARRAY[ROW('main', 'push', 3)::branch_publish_policy], 'bucket');
INSERT INTO branch_publish_policy VALUES ('main', 'propose', NULL);
INSERT INTO candidate (suite, codebase, context, value, success_chance, command, publish_policy)
    VALUES ('gen', 'cb-old', 'c', 5, 0.5, 'old-command', 'theirs');
INSERT INTO followup (origin, candidate) SELECT 'run-old', id FROM candidate;
INSERT INTO queue (codebase, suite, command, priority, estimated_duration, requester) VALUES ('cb-old', 'gen', 'old-command', 40, interval '90 s', 'they');
INSERT INTO queue (codebase, suite, command, change_set, bucket) VALUES ('cb-new', 'gen', NULL, 'set-1', 'manual');
DELETE FROM queue WHERE codebase = 'cb-new';
INSERT INTO merge_proposal (url, codebase, status, revision) VALUES ('https://example.com/mp/1', 'cb-old', 'open', 'r2');
INSERT INTO debian_build (run_id, version, distribution, source, binary_packages) VALUES ('run-old', '1.0-1', 'sid', 'old', '{old}');
