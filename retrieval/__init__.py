"""Documents in, ranked and citable chunks out. Knows Qdrant; knows neither HTTP nor SQL."""
