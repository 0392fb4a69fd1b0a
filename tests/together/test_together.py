from tests.together.world import ENTRIES, live
import tests.together.plugins
