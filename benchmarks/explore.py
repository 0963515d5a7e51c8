import sys, time, dataclasses
import torch, weft
from triton.testing import do_bench
from weft.codegen.configure import Config, configure
from weft.codegen.launch import kernel_for, run, upload, architecture, describable
from weft.codegen.tables import tile_lists, gather
from weft.calls import host_inputs
from weft.check import natural_heads
torch.manual_seed(0)
dev="cuda"
print(torch.cuda.get_device_name(), torch.__version__)
def call(p,q,k,v,cfg,**inputs):
    H,G,m,n=q.shape[1],k.shape[1],q.shape[2],k.shape[2]
    mask=p.bind(H,G); shape=p.shape(n,m,H,G)
    arr=host_inputs(p,mask,inputs,n,m,H,q.shape[0])
    batched=tuple(t.name for t in mask.tables if t.source and arr[t.source].ndim==2)
    kr=kernel_for(mask,shape,"bf16" if q.dtype==torch.bfloat16 else "fp16",q.shape[3],m,90,True,batched,config=cfg)
    tb=gather(kr.plan,arr,n,m)
    rows=range(q.shape[0]) if tb.batched else range(1)
    ls=None
    if kr.plan.strategy!="run": ls=upload([tile_lists(kr.plan,tb.of(b),n,m,torch.device(dev)) for b in rows],torch.device(dev))
    ts={a:torch.from_numpy(x).to(torch.int32).to(dev) for a,x in tb.arrays.items()}
    return kr,(lambda: run(kr,q,k,v,q.shape[3]**-0.5,ls,ts))
HC=[Config(128,128,4,2,True,True),Config(128,64,4,3,True,True)]
bad=0
for name,kw,inp in [("causal_attention",{},0),("sliding_window",dict(window=100),0),("attention_sinks",dict(start=4,recent=70),0),("longformer",dict(window=64,globals=8),0),("power_attention",dict(block=32),0),("s2_attention",{},0),("packed_documents",{},1),("bigbird",{},0),("neighborhood_2d",dict(height=20,width=15),0),("dilated_window",dict(window=20),0),("pattern e() { causal keep q-k>=100 and q%3!=0 }",{},0)]:
    p=weft.load(name)
    p=p(**kw)
    for (n,m,D,dt) in ((300,300,128,torch.bfloat16),(257,257,80,torch.float16),(300,77,64,torch.bfloat16),(63,63,64,torch.float16),(1,1,128,torch.bfloat16)):
        q=torch.randn(2,4,m,D,device=dev,dtype=dt); k=torch.randn(2,2,n,D,device=dev,dtype=dt); v=torch.randn(2,2,n,D,device=dev,dtype=dt)
        ii={"doc":torch.stack([torch.arange(n)//37,torch.arange(n)//50])} if inp else {}
        o2,l2=p.attention(q.double().cpu(),k.double().cpu(),v.double().cpu(),return_lse=True,backend="reference",**ii)
        for c in HC+[Config(64,64,4,3,True)]:
            try:
                kr,f=call(p,q,k,v,c,**ii); o,l=f(); torch.cuda.synchronize()
                o=o.double().cpu(); l=l.double().cpu(); fin=torch.isfinite(l2)
                err=(o-o2).abs().max().item(); le=(l-l2)[fin].abs().max().item() if fin.any() else 0
                ok=err<2e-2 and le<2e-2 and bool((torch.isfinite(l)==fin).all()) and not torch.isnan(o).any()
            except Exception as e:
                ok=False; err=le=str(e)[:300]
            if not ok: bad+=1; print("BAD",name,n,m,D,dt,c,err,le,flush=True)
print("bad",bad,flush=True)
H,D=16,128
def pairs(kind,N,W):
    if kind=="causal": return N*(N+1)/2
    return W*(W+1)/2+(N-W)*W
from torch.nn.attention.flex_attention import flex_attention, create_block_mask
cfgs=[]
for s in (1,4,16):
    cfgs+= [Config(128,128,4,2,True,True,s),Config(128,64,4,3,True,True,s),Config(128,64,4,4,True,True,s)]
cfgs.append(Config(64,64,4,3,True,False))
for N in (8192,32768):
    q,k,v=(torch.randn(1,H,N,D,device=dev,dtype=torch.bfloat16) for _ in range(3))
    for kind,W in (("causal",0),("window",1024),("window",4096)):
        p=weft.load("pattern p(w: int=1) { causal keep q-k<w or w==0 }", w=W)
        work=4*H*D*pairs(kind,N,W)
        rows=[]
        import torch._dynamo; torch._dynamo.reset()
        f=torch.compile(flex_attention)
        mm=(lambda b,h,qi,ki: qi>=ki) if W==0 else (lambda b,h,qi,ki: (qi>=ki)&(qi-ki<W))
        bmask=create_block_mask(mm,None,None,N,N,device=dev)
        ref=f(q,k,v,block_mask=bmask); tflex=do_bench(lambda: f(q,k,v,block_mask=bmask),warmup=20,rep=80,return_mode="median")
        for c in cfgs:
            try:
                kr,g=call(p,q,k,v,c); o,l=g()
                err=((o.float()-ref.float()).norm()/ref.float().norm()).item()
                ms=do_bench(g,warmup=10,rep=60,return_mode="median")
                rows.append((ms,(c.block_m,c.block_n,c.warps,c.stages,"hop" if c.hopper else "plain",c.side_by_side),err))
            except Exception as e:
                rows.append((1e9,c,str(e)[:150]))
        rows.sort(key=lambda r:r[0])
        print(N,kind,W,"flex %.0f TF"%(work/tflex/1e9),flush=True)
        for r in rows: print("    %.0f TF ratio %.2f %s err %s"%(work/r[0]/1e9,tflex/r[0],r[1],r[2]),flush=True)
