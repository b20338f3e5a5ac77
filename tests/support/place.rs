//! The partition that every world of a test program is in, and whose names it carries.
//!
//! It is the program's, not a test's: a suite is run in another partition by running its program again, so that no test
//! has to know of it and none is left out.

use std::process::Command;
use std::sync::LazyLock;

/// Tells a test program where its worlds are.
const VARIABLE: &str = "KEYWHEEL_TEST_PARTITION";

/// A partition of AWS, with two regions of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The commercial one, where nobody asks for another.
    Commercial,
    /// `GovCloud`.
    GovCloud,
    /// China.
    China,
}

impl Place {
    /// Where the worlds of this program are.
    pub fn here() -> Self {
        static HERE: LazyLock<Place> = LazyLock::new(|| match std::env::var(VARIABLE).as_deref() {
            Err(_) => Place::Commercial,
            Ok("aws-us-gov") => Place::GovCloud,
            Ok("aws-cn") => Place::China,
            Ok(other) => panic!("{VARIABLE} is {other:?}, where no world can be"),
        });
        *HERE
    }

    /// The partition.
    pub const fn partition(self) -> &'static str {
        match self {
            Self::Commercial => "aws",
            Self::GovCloud => "aws-us-gov",
            Self::China => "aws-cn",
        }
    }

    /// A region and another one, but for the numbers behind them.
    pub const fn regions(self) -> [&'static str; 2] {
        match self {
            Self::Commercial => ["eu-west", "eu-north"],
            Self::GovCloud => ["us-gov-west", "us-gov-east"],
            Self::China => ["cn-north", "cn-northwest"],
        }
    }

    /// Whether AWS answers under this host's name here.
    pub fn has_host(self, host: &str) -> bool {
        match self {
            Self::Commercial => host.ends_with(".amazonaws.com") && !host.contains(".us-gov"),
            Self::GovCloud => host.ends_with(".amazonaws.com") && host.contains(".us-gov"),
            Self::China => host.ends_with(".amazonaws.com.cn"),
        }
    }

    /// Runs every test of this program once more, all their worlds in this place, but for those whose names contain
    /// `without`. Fails unless all of them pass.
    pub fn runs_all_again(self, without: &str) {
        let program = std::env::current_exe().unwrap();
        let again = |more: &[&str]| {
            let mut tests = Command::new(&program);
            tests.args(more).args(["--skip", without]);
            // The figures are those of the first time.
            tests.env(VARIABLE, self.partition()).env_remove("KEYWHEEL_FIGURES");
            let done = tests.output().unwrap();
            let text = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            (done.status.success(), text.concat())
        };
        let (_, listed) = again(&["--list"]);
        let tests = listed.lines().filter(|line| line.ends_with(": test")).count();
        assert!(tests > 0, "{listed}");
        let (passed, told) = again(&[]);
        assert!(passed && told.contains(&format!("test result: ok. {tests} passed")), "{self:?}:\n{told}");
    }
}
