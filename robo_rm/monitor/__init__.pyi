from robo_rm.monitor.card import print_promise as print_promise
from robo_rm.monitor.card import write_card_section as write_card_section
from robo_rm.monitor.fitting import fit_monitor as fit_monitor
from robo_rm.monitor.promise import MONITOR as MONITOR
from robo_rm.monitor.promise import remove_monitor as remove_monitor
from robo_rm.monitor.promise import write_monitor as write_monitor
