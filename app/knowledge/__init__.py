"""Knowledge bases: documents and versions in SQL, chunks and vectors behind them."""
