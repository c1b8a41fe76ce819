# Completion of imds-detourctl in bash. Written by scripts/completions.py.

_imds_detourctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words= files=
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if ((COMP_CWORD == 1)); then
        words="doctor status check plan init sidecar remove mock demo copy completion --help --version"
    else
        case ${COMP_WORDS[1]}:$before in
        doctor:--hostname | doctor:--mock | doctor:--port | doctor:--endpoints | doctor:--timeout | doctor:--probe | check:--hostname | check:--mock | check:--port | check:--endpoints | check:--timeout | check:--probe | plan:--hostname | plan:--mock | plan:--port | plan:--endpoints | init:--hostname | init:--mock | init:--port | init:--endpoints | init:--timeout | init:--probe | sidecar:--listen | sidecar:--every | sidecar:--hostname | sidecar:--mock | sidecar:--port | sidecar:--endpoints | sidecar:--timeout | sidecar:--probe | mock:--listen | mock:--credential-process | mock:--control | mock:--credentials-ttl | mock:--spot-in | mock:--rebalance-in | mock:--delay | mock:--fail | demo:--command) words="" ;;
        doctor:--backend | plan:--backend | init:--backend | sidecar:--backend) words="auto legacy nft env" ;;
        doctor:--guard | plan:--guard | init:--guard | sidecar:--guard) words="on chosen off" ;;
        doctor:--log | check:--log | init:--log | sidecar:--log) words="text json quiet debug" ;;
        mock:--data) files=1 ;;
        mock:--imdsv2) words="optional required" ;;
        doctor:*) words="--help --json --all --hostname --mock --port --endpoints --timeout --backend --probe --guard --log" ;;
        status:*) words="--help --json" ;;
        check:*) words="--help --json --hostname --mock --port --endpoints --timeout --probe --log" ;;
        plan:*) words="--help --hostname --mock --port --endpoints --backend --guard" ;;
        init:*) words="--help --json --host --bridges --hostname --mock --port --endpoints --timeout --backend --probe --guard --log" ;;
        sidecar:*) words="--help --listen --every --keep --host --bridges --hostname --mock --port --endpoints --timeout --backend --probe --guard --log" ;;
        remove:*) words="--help" ;;
        mock:*) words="--help --listen --data --print-data --imdsv2 --log --quiet --credential-process --control --credentials-ttl --spot-in --rebalance-in --delay --fail --hang" ;;
        demo:*) words="--help --command" ;;
        copy:*) words="--help" ;;
        completion:*) words="--help bash zsh fish" ;;
        esac
    fi
    COMPREPLY=($(compgen ${files:+-f} -W "$words" -- "$word"))
}
complete -F _imds_detourctl imds-detourctl
