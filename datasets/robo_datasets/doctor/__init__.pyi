from robo_datasets.doctor import examine as examine
from robo_datasets.doctor import repair as repair
from robo_datasets.doctor.findings import ERROR as ERROR
