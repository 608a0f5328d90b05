//! What a codemod starts from: the branch, or what an earlier run made of it.

use super::{
    git::{Checkout, Resumed},
    report::Failure,
    run::Run,
};

impl Run<'_> {
    /// Clones the branch, or its copy in the VCS store where that is all that can be reached.
    pub(super) async fn clone(&self, checkout: &Checkout<'_>) -> Result<(), Failure> {
        let failed = Failure::of_git("clone-failed", "setup/clone");
        let branch = &self.assignment.branch;
        let cloned = checkout.start(branch.url.as_deref()).await;
        let (Err(error), Some(cached), Some(_)) = (&cloned, &branch.cached_url, &branch.url) else {
            return cloned.map_err(failed);
        };
        if self.stop.is_cancelled() {
            return cloned.map_err(failed);
        }
        self.log.line(&format!(
            "the branch cannot be cloned ({error}); trying its copy in the VCS store"
        ));
        // What is reported is why the branch itself cannot be cloned.
        match checkout.start(Some(cached)).await {
            Ok(()) => Ok(()),
            Err(_) => cloned.map_err(failed),
        }
    }

    /// Fetches the branches beside the one that is changed, as far as they exist.
    pub(super) async fn fetch_colocated(&self, checkout: &Checkout<'_>) -> Result<(), Failure> {
        let branch = &self.assignment.branch;
        let Some(url) = &branch.url else {
            return Ok(());
        };
        for name in branch.colocated() {
            let fetched = checkout.fetch_branch(url, &name).await;
            if !fetched.map_err(Failure::of_git("clone-failed", "setup/clone"))? {
                self.log.line(&format!("there is no branch {name}"));
            }
        }
        Ok(())
    }

    /// Continues from the earlier result, if there is one and it still fits.
    pub(super) async fn resume(&self, checkout: &Checkout<'_>) -> Result<Option<Resumed>, Failure> {
        let Some(resume) = &self.assignment.resume else {
            return Ok(None);
        };
        let resumed = checkout
            .resume(&resume.branch_url, resume.main())
            .await
            .map_err(Failure::of_git("resume-failed", "setup/resume"))?;
        if let Resumed::From(_) = &resumed {
            let result = resume.result.clone().unwrap_or_default().to_string();
            std::fs::write(&self.folders.resume, result)
                .map_err(|e| Failure::new("resume-failed", "setup/resume", e))?;
        }
        Ok(Some(resumed))
    }
}
