"""What other toolkits call the settings of a training, where no name here is near: fairseq, OpenNMT-py, Eole, JoeyNMT,
Sockeye and Marian.

docs/guide/moving.md has them in tables, one for each toolkit.
"""

from __future__ import annotations

_SHAPE_OF = "write model.encoder_{0} and model.decoder_{0}"
_TEXTS = "write data.{0}.source and data.{0}.target, two aligned files, or data.{0}.path"
_PATIENCE = "write training.early_stopping_patience, in validations"
_HALF = "write training.bf16=true or training.fp16=true"
_STEPS = "write training.{0}, in updates"
_LAUNCHER = "the launcher starts the processes, `accelerate launch`; training.num_processes checks how many"
_TIED = "write model.tie_word_embeddings, and tokenizer.joint for one vocabulary on both sides"
_TOKENS = "write batching.batch_tokens, tokens of one batch on one device, or batching.max_sentences, pairs"
_DEVICE = "a GPU is taken where there is one; training.use_cpu=true refuses it"

_ANSWERS: dict[tuple[str, ...], str] = {
    # batching
    ("max_tokens", "mini_batch_words"): "write batching.batch_tokens",
    ("batch_size", "batch_type", "mini_batch", "mini_batch_fit", "workspace", "bucket_size", "maxi_batch"): _TOKENS,
    ("update_freq", "accum_count", "batch_multiplier", "optimizer_delay", "update_interval"): (
        "write training.gradient_accumulation_steps"
    ),
    ("max_source_positions", "src_seq_length"): "write batching.max_source_length",
    ("max_target_positions", "tgt_seq_length"): "write batching.max_target_length",
    ("max_sent_length", "max_seq_len"): "write batching.max_source_length and batching.max_target_length",
    # training
    ("lr", "learn_rate", "initial_learning_rate"): "write training.learning_rate",
    ("lr_scheduler", "decay_method", "scheduling", "lr_decay_inv_sqrt"): "write schedule.name",
    ("warmup_updates", "lr_warmup", "learning_rate_warmup"): "write schedule.warmup_steps",
    ("optimizer",): "write training.optim",
    ("adam_betas", "optimizer_params"): "write training.adam_beta1 and training.adam_beta2",
    ("adam_eps",): "write training.adam_epsilon",
    ("clip_norm", "clip_grad_norm", "gradient_clipping_threshold"): "write training.max_grad_norm",
    ("label_smoothing", "label_smoothing_eps"): "write training.label_smoothing_factor",
    ("max_update", "train_steps", "after_batches", "updates", "max_updates"): "write training.max_steps",
    ("max_epoch", "epochs", "after_epochs", "max_num_epochs"): "write training.num_train_epochs",
    ("valid_steps", "valid_freq", "validation_freq", "validate_interval_updates", "checkpoint_interval"): (
        _STEPS.format("eval_steps")
    ),
    ("save_checkpoint_steps", "save_freq", "save_interval_updates"): _STEPS.format("save_steps"),
    ("log_interval", "report_every", "logging_freq", "disp_freq"): _STEPS.format("logging_steps"),
    ("keep_checkpoint", "keep_best_ckpts", "keep_last_epochs", "keep_interval_updates", "keep_last_params"): (
        "write training.save_total_limit"
    ),
    ("patience", "max_num_checkpoint_not_improved"): _PATIENCE,
    ("early_stopping",): f"{_PATIENCE}; of beam search it is decoding.early_stopping",
    ("best_checkpoint_metric", "early_stopping_metric", "optimized_metric", "valid_metrics"): (
        "write training.metric_for_best_model: bleu, chrf or loss"
    ),
    ("eval_metrics",): "write metrics.names",
    ("average_decay", "exponential_smoothing"): (
        "write objective.ema.decay, the share that is kept: 0.9999 where it was 0.0001; "
        "training.num_average_checkpoints averages the last checkpoints"
    ),
    ("ema_decay", "store_ema", "ema_start_update"): "write objective.ema.decay, such as 0.999",
    ("decrease_factor",): "write schedule.gamma",
    ("rdrop_alpha", "reg_alpha"): "write objective.r_drop.alpha, half of fairseq's",
    ("amp", "compute_dtype", "memory_efficient_fp16", "precision"): _HALF,
    ("world_size", "gpu_ranks", "distributed_world_size"): _LAUNCHER,
    ("devices", "use_cuda", "cpu_threads"): _DEVICE,
    ("random_seed",): "write seed",
    ("model_dir", "save_dir", "save_model"): "write output_dir, in which each run gets a folder of its own",
    # model
    ("layers", "num_layers"): _SHAPE_OF.format("layers"),
    ("enc_layers", "enc_depth"): "write model.encoder_layers",
    ("dec_layers", "dec_depth"): "write model.decoder_layers",
    ("heads", "num_heads", "transformer_heads"): _SHAPE_OF.format("attention_heads"),
    ("ff_size", "transformer_ff", "transformer_dim_ffn"): _SHAPE_OF.format("ffn_dim"),
    ("hidden_size", "embedding_dim", "dim_emb", "encoder_embed_dim", "decoder_embed_dim", "word_vec_size"): (
        "write model.d_model"
    ),
    ("encoder_ffn_embed_dim",): "write model.encoder_ffn_dim",
    ("decoder_ffn_embed_dim", "transformer_decoder_dim_ffn"): "write model.decoder_ffn_dim",
    ("share_all_embeddings", "share_embeddings", "share_decoder_input_output_embed", "share_decoder_embeddings",
     "tied_embeddings", "tied_softmax", "tied_embeddings_all"): _TIED,
    ("encoder_normalize_before", "decoder_normalize_before", "layer_norm"): "write model.norm_position: pre or post",
    ("position_encoding_type", "encoder_learned_pos", "decoder_learned_pos"): "write model.position_embedding",
    ("activation_fn", "mlp_activation_fn", "pos_ffn_activation_fn", "transformer_ffn_activation"): (
        "write model.activation_function"
    ),
    ("relu_dropout", "transformer_dropout_ffn"): "write model.activation_dropout",
    ("transformer_dropout",): "write model.dropout",
    ("transformer_dropout_attention",): "write model.attention_dropout",
    ("arch", "architecture"): "write model.d_model and its neighbours; --config production has the base transformer",
    # data and tokenizer
    ("source_lang", "src_lang"): "write data.source_language",
    ("target_lang", "tgt_lang", "trg_lang"): "write data.target_language",
    ("path_src", "path_tgt", "trainpref", "train_sets", "train_file", "train_src", "train_tgt"): (
        _TEXTS.format("train")
    ),
    ("dev", "validpref", "valid", "valid_sets", "validation_file", "valid_src", "valid_tgt"): (
        _TEXTS.format("validation")
    ),
    ("share_vocab", "joined_dictionary"): "write tokenizer.joint",
    ("voc_limit", "src_vocab_size", "tgt_vocab_size", "dim_vocabs", "nwordssrc", "nwordstgt"): (
        "write tokenizer.vocab_size"
    ),
    ("src_vocab", "tgt_vocab", "vocabs", "srcdict", "tgtdict"): (
        "the tokenizer is trained with the model; write tokenizer.path for one of hf_nmt"
    ),
}  # fmt: skip

FAMILIAR_NAMES: dict[str, str] = {name: f"{answer}." for names, answer in _ANSWERS.items() for name in names}
