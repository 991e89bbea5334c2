from ._charts import layout_of as layout_of
from ._charts import metric_chart as metric_chart
from ._embedding import STRONG as STRONG
from ._embedding import embedding_chart as embedding_chart
from ._embedding import trajectories_chart as trajectories_chart
from ._flow import flow_chart as flow_chart
from ._similarity import similarity_charts as similarity_charts
