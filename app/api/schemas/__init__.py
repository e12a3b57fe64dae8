"""The wire shapes of the resources, apart from the job (`app.jobs.spec` in, `app.api.views` out)."""
