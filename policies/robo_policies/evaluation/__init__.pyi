from robo_policies.evaluation import evaluate as evaluate
from robo_policies.evaluation.comparison import compare as compare
from robo_policies.evaluation.evaluate import check_request as check_request
from robo_policies.evaluation.report import metric_rows as metric_rows
from robo_policies.evaluation.report import pair_rows as pair_rows
from robo_policies.evaluation.report import verdict as verdict
from robo_policies.evaluation.report import write_report as write_report
