"""Reports: what a run folder says, as tables and pictures. ``docs/leaderboard.md`` documents what they write."""
