//! `[control] metrics_listen`: the TCP address at which monitors may read the metrics and the health of the daemon.

use std::net::SocketAddr;

use crate::invalid::Invalid;

const LISTEN: &str = "control.metrics_listen";
const PUBLIC: &str = "control.metrics_public";

/// Checks both keys. The address is one of this machine only, unless the file says that it may be public: there is no
/// password.
pub(super) fn address(
    listen: Option<&str>,
    public: Option<bool>,
) -> Result<Option<SocketAddr>, Invalid> {
    let Some(text) = listen else {
        return match public {
            Some(_) => Err(Invalid::new(PUBLIC, "has no effect without metrics_listen")),
            None => Ok(None),
        };
    };
    let example = "must be an address and a port, such as \"127.0.0.1:9464\"";
    let address: SocketAddr = text.parse().map_err(|_| Invalid::new(LISTEN, example))?;
    if !address.ip().is_loopback() && public != Some(true) {
        let message = format!(
            "other machines may reach {address}, and everybody there could read the metrics; \
             if that is intended, set metrics_public = true"
        );
        return Err(Invalid::new(LISTEN, message));
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(listen: Option<&str>, public: Option<bool>) -> Result<Option<String>, String> {
        let address = address(listen, public).map_err(|invalid| invalid.to_string())?;
        Ok(address.map(|address| address.to_string()))
    }

    #[test]
    fn an_address_of_this_machine_needs_nothing_else() {
        assert_eq!(checked(None, None), Ok(None));
        for address in ["127.0.0.1:9464", "[::1]:9464", "127.1.2.3:0"] {
            assert_eq!(checked(Some(address), None), Ok(Some(address.to_owned())));
            assert_eq!(checked(Some(address), Some(true)), Ok(Some(address.to_owned())));
        }
    }

    #[test]
    fn an_address_that_others_may_reach_has_to_be_public() {
        for address in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464"] {
            for public in [None, Some(false)] {
                let refused = checked(Some(address), public).unwrap_err();
                assert!(refused.starts_with(LISTEN) && refused.contains("metrics_public"));
            }
            assert_eq!(checked(Some(address), Some(true)), Ok(Some(address.to_owned())));
        }
    }

    #[test]
    fn what_is_no_address_or_has_no_effect_is_refused() {
        for text in
            ["", "9464", ":9464", "localhost:9464", "127.0.0.1", "127.0.0.1:99999", "/run/x"]
        {
            let refused = checked(Some(text), None).unwrap_err();
            assert!(refused.contains("127.0.0.1:9464"), "{text}: {refused}");
        }
        for public in [true, false] {
            assert!(checked(None, Some(public)).unwrap_err().starts_with(PUBLIC));
        }
    }
}
