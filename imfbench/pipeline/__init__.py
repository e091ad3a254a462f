"""The stages of an experiment: plan, train, search, synthesise, score, summarise."""
