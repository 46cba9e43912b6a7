"""Who asks: the one type that admin tokens are turned into, and that any other way to prove who
one is (OIDC) has to be turned into as well.
"""

from typing import Final

import msgspec

from gateway.admin.roles import Role
from gateway.stores.sql.second_person import INSTALLATION


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A person or program with one role, at one node: the platform (neither id), a tenant or a
    team. Its rights end with the subtree below that node.
    """

    id: str
    name: str
    role: Role
    tenant_id: str | None = None
    team_id: str | None = None  # always with its tenant's id

    @property
    def everywhere(self) -> bool:
        """Whether it stands at the platform, above every tenant."""
        return self.tenant_id is None

    @property
    def scope(self) -> dict[str, str] | None:
        """As the API writes it; None: the platform."""
        if self.team_id is not None:
            return {"team": self.team_id}
        return None if self.tenant_id is None else {"tenant": self.tenant_id}


BOOTSTRAP: Final = Principal(id=INSTALLATION, name="admin token", role=Role.PLATFORM_ADMIN)
