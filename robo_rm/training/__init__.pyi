from robo_rm.training.budget import Budget as Budget
from robo_rm.training.budget import cut_off_warning as cut_off_warning
from robo_rm.training.curves import curve_figure as curve_figure
from robo_rm.training.curves import loss_figure as loss_figure
from robo_rm.training.device import pick_device as pick_device
from robo_rm.training.device import process_index as process_index
