"""What commands do, and the methods of an open session (api/). A run is a folder that a Session
names; these files are

* commands: training, warmstart, evaluation, searching, reporting; parameters (init, export);
* the folder of a run: workdir, continuing, disk, durable; program_cache;
* its model: opening, model_files; its checkpoints: saving, checkpoint, restoring, state, leaves;
* trees: engines, loaded (what is opened once), growing (who grows what); those that a user asks
  for: questions, question_trees, searched, tree_pages;
* those of a step: sampler, batches (of which problems), budget (how many), starts (where from),
  forking, sampled, waiting; experience (what is learnt from them besides the parameters);
* learning from them: learning; of worked solutions: imitation;
* evaluations: samples (in files), benchmarks (tables), measuring (within a run);
* exports: exporting, model_card; their way to the hub: publishing, uploading;
* prompts: prompts; what goes wrong: watch, signs, broken; times of compilation: compiling;
* what is around the work of a command: working;
* processes: cluster, team, attendant, mesh, stopping.
"""
