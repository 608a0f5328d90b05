-- Takes or extends a role, unless another holder's time has not passed yet. Times are by the
-- database's clock: those of the runners' machines may differ.
INSERT INTO runner_leadership AS held (role, holder, until)
VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (role) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE held.holder = excluded.holder OR held.until < now()
