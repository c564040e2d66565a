#!/bin/sh
# The main job from end to end on the built-in Korean-English corpus: train, score, translate. Minutes on 2 cores.
#
#   make quickstart                  in the environment of the Makefile
#   sh recipes/quickstart.sh         in an environment where hf_nmt is installed
set -eu
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"

# train.py prints one line, the folder of the best model.
best=$(python recipes/train.py --config quickstart)
run=$(dirname "$best")

python recipes/validate.py --config quickstart model="$best"

cat > "$run/quickstart.ko" <<'KOREAN'
그 의자 아래에 두꺼운 신문이 있어요.
기술자 네 명은 작년에 사무실에서 그 유용한 앱을 설치했습니다.
은행이 그 변호사를 고용하면 그들은 그 변호사에게 전화할 것입니다.
그녀는 치료가 효과적이라고 믿었습니다.
기자 일곱 명은 은지가 지훈의 정책을 지지했다고 말했다.
KOREAN
python recipes/translate.py model="$best" input="$run/quickstart.ko" output="$run/quickstart.en"

echo
paste -d '\n' "$run/quickstart.ko" "$run/quickstart.en" | sed 's/^/    /'
echo
echo "Plots, metrics, log and checkpoints of the run:     $run"
echo "The model, for recipes/translate.py or pipeline():  $best"
echo "In the environment (. .venv/bin/activate, if make made it), one sentence of that small language a line:"
echo "    echo '그녀는 의자를 설치했습니다.' | python recipes/translate.py model=$best"
