"""Rules of a shop for lists: which items and users, what may come again, categories, places for new items."""

from recvae.data.rules.resolved import ItemRules as ItemRules
from recvae.data.rules.resolved import UnknownIds as UnknownIds
from recvae.data.rules.rules import Rules as Rules
from recvae.data.rules.rules import UnknownIdsWarning as UnknownIdsWarning
