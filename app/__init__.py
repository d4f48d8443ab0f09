"""The Tandem service: HTTP, SQL, jobs and wiring. The only package that imports the other three."""
