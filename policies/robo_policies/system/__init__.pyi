from robo_policies.system.machine import examine_machine as examine_machine
