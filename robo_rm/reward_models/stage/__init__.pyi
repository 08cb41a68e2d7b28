from robo_rm.reward_models.stage.sparse import model_with_head as model_with_head
