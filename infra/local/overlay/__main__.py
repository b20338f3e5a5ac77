"""`python -m overlay`: start the patched emulator in the foreground.

Settings come from the environment, as for the emulator itself: GATEWAY_PORT,
AUTH=true, BIND_HOST, MINISTACK_ACCOUNT_ID, CLOUDTRAIL_RECORDING=1 and
AWS_ENDPOINT_URL.
"""

import os

# Nothing here talks MQTT or SFTP; their listeners would only take fixed ports,
# so that two local clouds on one machine would disturb each other.
os.environ.setdefault("IOT_MTLS_ENABLED", "0")
os.environ.setdefault("SFTP_ENABLED", "0")


def main() -> None:
    """Patch, then serve."""
    from overlay import patching

    patching.require_version()

    from overlay import (
        cloudformation,
        cloudtrail,
        conditions,
        eventbridge,
        gateway,
        iam,
        organizations,
        secretsmanager,
        stepfunctions,
    )

    for module in (iam, secretsmanager, conditions, eventbridge, stepfunctions,
                   organizations, cloudtrail, cloudformation, gateway):
        module.apply()
    patching.finish()

    from ministack import app

    app.main()


if __name__ == "__main__":
    main()
