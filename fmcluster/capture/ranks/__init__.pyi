from ._ranks import is_beside_first as is_beside_first
from ._ranks import is_in_job as is_in_job
from ._ranks import ranks_of_job as ranks_of_job
from ._team import Layout as Layout
from ._team import Team as Team
from ._team import WhichRanks as WhichRanks
from ._team import check_ranks as check_ranks
from ._team import lay_out as lay_out
