from robo_rm.weights.rabc import check_settings as check_settings
